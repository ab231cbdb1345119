// 16-bit floats as tests want them: rounded another way than kernels round. Thread-safe.
#ifndef MILLRACE_TESTS_CUDA_HALF_FLOATS_H_
#define MILLRACE_TESTS_CUDA_HALF_FLOATS_H_

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/cuda/half_rows.h"
#include "kernels/dequantize.h"

namespace millrace::testing {

// By the distance to both neighbours.
inline std::uint16_t NearestBfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto toward_zero = static_cast<std::uint16_t>(bits >> 16);
  if (std::isnan(value)) return toward_zero | 0x0040U;
  if (std::isinf(value)) return toward_zero;
  const auto away = static_cast<std::uint16_t>(toward_zero + 1);
  // Beyond the largest lies what would be the next, 2^128, and stands for infinity.
  const auto exact = [](std::uint16_t half) {
    return (half & 0x7FFFU) == 0x7F80U ? std::copysign(0x1p128, (half & 0x8000U) != 0 ? -1.0 : 1.0)
                                       : double{Bfloat16ToFloat(half)};
  };
  const double down = std::abs(double{value} - exact(toward_zero));
  const double up = std::abs(exact(away) - double{value});
  if (down != up) return down < up ? toward_zero : away;
  return toward_zero % 2 == 0 ? toward_zero : away;
}

inline float Widen(cuda::HalfType type, std::uint16_t half) {
  return type == cuda::HalfType::kF16 ? HalfToFloat(half) : Bfloat16ToFloat(half);
}

// The same bits; a NaN equals any.
inline bool SameHalf(cuda::HalfType type, std::uint16_t a, std::uint16_t b) {
  return a == b || (std::isnan(Widen(type, a)) && std::isnan(Widen(type, b)));
}

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_CUDA_HALF_FLOATS_H_
