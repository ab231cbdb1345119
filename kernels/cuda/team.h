// Threads of a block, in whole warps, that do a piece of work together: all of them in a kernel of
// its own, some in the end of another kernel. Device code; a value.
#ifndef MILLRACE_KERNELS_CUDA_TEAM_H_
#define MILLRACE_KERNELS_CUDA_TEAM_H_

#include "kernels/cuda/device.h"

namespace millrace::cuda {

struct Team {
  int thread;   // which of them the calling one is
  int threads;  // a multiple of 32

  __device__ int warp() const { return thread / kWarpSize; }
  __device__ int warps() const { return threads / kWarpSize; }
};

// REQUIRES: the block is a row of threads.
__device__ inline Team WholeBlock() {
  return {static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
}
__device__ inline Team OwnWarp() { return {static_cast<int>(threadIdx.x) % kWarpSize, kWarpSize}; }

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_TEAM_H_
