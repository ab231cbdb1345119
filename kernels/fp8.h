// The KV cache's type fp8: a byte a value, E4M3 of the Open Compute Project's 8-bit floats
// (sign, four bits of exponent with bias 7, three of mantissa), with no scale beside it.
//
//   exponent 0      mantissa * 2^-9: zeros and subnormals
//   otherwise       (1 + mantissa / 8) * 2^(exponent - 7), up to 448 = 0x7E
//   0x7F and 0xFF   NaN; there are no infinities
//
// Values are rounded to nearest, ties to even; what is larger than 448 becomes 448. A NaN or an
// infinity becomes NaN, so that a fault is not hidden.
//
// The definition for all levels and for the GPU (docs/numerics.md). Leaf header; thread-safe
// (pure). Its functions are inlined by force, as those of kernels/paged_kv.h.
#ifndef MILLRACE_KERNELS_FP8_H_
#define MILLRACE_KERNELS_FP8_H_

#include <bit>
#include <cstdint>

namespace millrace {

struct Fp8 {
  std::uint8_t bits;
};

inline constexpr std::uint8_t kFp8Nan = 0x7F;
inline constexpr std::uint8_t kFp8Largest = 0x7E;  // 448

// Without branches, so that compilers make vectors of it.
[[gnu::always_inline]] constexpr Fp8 FloatToFp8(float value) {
  constexpr std::uint32_t kInfinity = 0x7F800000U;
  constexpr std::uint32_t kSmallestNormal = 0x3C800000U;    // 2^-6
  constexpr std::uint32_t kBelow = (127U - 7U) << 3;        // by which exponents differ
  constexpr std::uint32_t kUnitOfSubnormals = 0x46800000U;  // 2^14: its last bit is 2^-9
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  // Half of the last bit that stays, less one where that bit is even: a tie is carried if odd.
  const std::uint32_t rounded = (magnitude + 0x7FFFFU + ((magnitude >> 20) & 1U)) >> 20;
  // Adding 2^14 rounds to a multiple of 2^-9.
  const float shifted = std::bit_cast<float>(magnitude) + std::bit_cast<float>(kUnitOfSubnormals);
  const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(shifted) - kUnitOfSubnormals;
  std::uint32_t code = rounded - kBelow;
  code = code > kFp8Largest ? kFp8Largest : code;
  code = magnitude < kSmallestNormal ? subnormal : code;
  code = magnitude >= kInfinity ? kFp8Nan : code;
  return {static_cast<std::uint8_t>(((bits >> 24) & 0x80U) | code)};
}

// Exact.
[[gnu::always_inline]] constexpr float Fp8ToFloat(Fp8 value) {
  const std::uint32_t sign = (value.bits & 0x80U) << 24;
  const std::uint32_t code = value.bits & 0x7FU;
  const float subnormal = static_cast<float>(code) * 0x1p-9F;
  std::uint32_t magnitude = (code << 20) + ((127U - 7U) << 23);
  magnitude = code < 8 ? std::bit_cast<std::uint32_t>(subnormal) : magnitude;
  magnitude = code == kFp8Nan ? 0x7FC00000U : magnitude;
  return std::bit_cast<float>(sign | magnitude);
}

}  // namespace millrace

#endif  // MILLRACE_KERNELS_FP8_H_
