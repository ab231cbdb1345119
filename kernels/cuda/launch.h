// The one place where kernels are launched, around cudaLaunchKernelEx. Host code; thread-safe.
#ifndef MILLRACE_KERNELS_CUDA_LAUNCH_H_
#define MILLRACE_KERNELS_CUDA_LAUNCH_H_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>

#include "kernels/cuda/block_limits.h"

namespace millrace::cuda {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;  // dynamic shared memory (kernels/cuda/device.h, BlockShared)
  // Let the kernel begin while the one before it in the stream ends: it calls AwaitPrevious.
  bool chained = false;
};

// Blocks get more dynamic shared memory than this only when the kernel's limit is raised.
inline constexpr std::size_t kDefaultSharedLimit = 48 * 1024;

// Launches `kernel(args...)`. Returns the launch's error; faults of the kernel itself come with a
// later call, as CUDA has it.
template <typename... Params, typename... Args>
cudaError_t Launch(void (*kernel)(Params...), const LaunchShape& shape, cudaStream_t stream,
                   Args&&... args) {
  if (shape.shared_bytes > kDefaultSharedLimit) {
    // The same for launches of different sizes: setting it to a smaller one would lower it for
    // those that are captured in a graph already.
    const std::size_t limit = std::max(shape.shared_bytes, std::size_t{kBlockSharedBytes});
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(limit));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = shape.chained ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, Params(args)...);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_LAUNCH_H_
