// The 16 virtual lanes of the numerics (docs/numerics.md, "Sums of floats") as the halves of a
// warp: thread t of a half is lane t. The fixed tree by exchanges among them. Device code; all 32
// threads of a warp call together, and each gets the result of its half.
#ifndef MILLRACE_KERNELS_CUDA_LANES16_H_
#define MILLRACE_KERNELS_CUDA_LANES16_H_

#include "kernels/cuda/device.h"

namespace millrace::cuda {

inline constexpr int kLanes16 = 16;

// Lanes 8 apart, then 4, 2, 1. A sum of two does not depend on their order, so both partners of an
// exchange hold what the tree has in the lower one.
__device__ inline float Sum16(float lane) {
  lane = lane + ShuffleXor(lane, 8);
  lane = lane + ShuffleXor(lane, 4);
  lane = lane + ShuffleXor(lane, 2);
  return lane + ShuffleXor(lane, 1);
}

// a > b ? a : b, so b where one is NaN: the order of the two matters.
__device__ inline float MaxOf(float a, float b) { return a > b ? a : b; }

__device__ inline float Max16(float lane) {
  const unsigned thread = threadIdx.x;
  for (unsigned apart = 8; apart > 0; apart /= 2) {
    const float other = ShuffleXor(lane, static_cast<int>(apart));
    lane = (thread & apart) != 0 ? MaxOf(other, lane) : MaxOf(lane, other);
  }
  return lane;
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_LANES16_H_
