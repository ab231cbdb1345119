// Floats to bfloat16. Device code.
#ifndef MILLRACE_KERNELS_CUDA_BFLOAT16_H_
#define MILLRACE_KERNELS_CUDA_BFLOAT16_H_

#include <cstdint>

#include "kernels/cuda/device.h"

namespace millrace::cuda {

// To nearest, ties to even; beyond the largest to infinity. A NaN stays one, and quiet.
__device__ inline std::uint16_t FloatToBfloat16(float value) {
  constexpr std::uint32_t kInfinity = 0x7F800000U;
  const std::uint32_t bits = FloatBits(value);
  const std::uint32_t upper = bits >> 16;
  if ((bits & 0x7FFFFFFFU) > kInfinity) return static_cast<std::uint16_t>(upper | 0x0040U);
  // Half of the last place that stays, less one where a tie would go up to an odd value.
  return static_cast<std::uint16_t>((bits + 0x7FFFU + (upper & 1U)) >> 16);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_BFLOAT16_H_
