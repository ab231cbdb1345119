// As many int8 matrix instructions as a device can do, on numbers in registers: the limit that
// products of quantised weights are held against (millrace bench --probe); and for which devices
// the kernels were compiled. Host code; thread-safe.
#ifndef MILLRACE_KERNELS_CUDA_INT8_PEAK_H_
#define MILLRACE_KERNELS_CUDA_INT8_PEAK_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace millrace::cuda {

inline constexpr int kInt8PeakThreads = 256;  // of a block
// Independent products of a warp, one behind the other: enough to hide what one takes.
inline constexpr int kInt8PeakChains = 8;
// Of one block and round; a multiply-add counts as two. A warp's product is 16 x 8 x 32.
inline constexpr std::int64_t kInt8PeakOperations =
    std::int64_t{kInt8PeakThreads / 32} * kInt8PeakChains * 2 * 16 * 8 * 32;

struct Int8PeakParams {
  std::int32_t* sums = nullptr;  // [blocks * kInt8PeakThreads] what each thread made
  std::int32_t blocks = 0;
  std::int32_t rounds = 0;
};

// A thread's sum, as the device must make it: `lane` is the thread's place in its warp.
std::int32_t Int8PeakSum(int lane, std::int32_t rounds);

cudaError_t LaunchInt8Peak(const Int8PeakParams& params, cudaStream_t stream);

// The compute capability, times ten, that this build's kernels were compiled for, of those that the
// current device can run: 90 for compute_90. cudaErrorNoKernelImageForDevice where it can run none.
cudaError_t CompiledFor(int* capability);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_INT8_PEAK_H_
