// Portable quantisation of activations; the definition is in kernels/cpu/quantize.h.
#include <bit>
#include <cstring>
#include <limits>

#include "kernels/cpu/quantize_kernels.h"
#include "kernels/quant_blocks.h"

namespace millrace::cpu::scalar {
namespace {

constexpr std::uint32_t kInfinityBits = 0x7F800000U;

// The largest |x| of a block by its bits: for non-negative floats the order of the bits is the
// order of the values, and infinities and NaNs come after all finite ones.
std::uint32_t MaxMagnitudeBits(const float* x, int n) {
  std::uint32_t max = 0;
  for (int i = 0; i < n; ++i) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x[i]) & 0x7FFFFFFFU;
    max = bits > max ? bits : max;
  }
  return max;
}

// Adding and taking away 1.5 * 2^23 rounds to an integer, ties to even, while |value| < 2^22.
std::int8_t Round(float value) {
  constexpr float kShift = 12582912.0F;
  const float rounded = (value + kShift) - kShift;
  const float clamped = rounded > 127.0F ? 127.0F : (rounded < -127.0F ? -127.0F : rounded);
  return static_cast<std::int8_t>(clamped);
}

// Fills q and returns the scale.
float QuantizeBlock(const float* x, int n, std::int8_t* q) {
  const std::uint32_t max_bits = MaxMagnitudeBits(x, n);
  const float max = std::bit_cast<float>(max_bits);
  const float inverse = 127.0F / max;
  if (max_bits >= kInfinityBits || std::bit_cast<std::uint32_t>(inverse) >= kInfinityBits) {
    std::memset(q, 0, static_cast<std::size_t>(n));
    return max_bits >= kInfinityBits ? std::numeric_limits<float>::quiet_NaN() : 0.0F;
  }
  for (int i = 0; i < n; ++i) q[i] = Round(x[i] * inverse);
  return max / 127.0F;
}

std::int32_t Sum(const std::int8_t* q, int n) {
  std::int32_t sum = 0;
  for (int i = 0; i < n; ++i) sum += q[i];
  return sum;
}

}  // namespace

void QuantizeRowQ8x32(const float* x, std::int64_t k, std::byte* out) {
  auto* blocks = reinterpret_cast<ActivationQ8x32*>(out);
  for (std::int64_t b = 0; b < k / 32; ++b) {
    blocks[b].scale = QuantizeBlock(x + 32 * b, 32, blocks[b].q);
    blocks[b].sum = Sum(blocks[b].q, 32);
  }
}

void QuantizeRowQ8x256(const float* x, std::int64_t k, std::byte* out) {
  auto* blocks = reinterpret_cast<ActivationQ8x256*>(out);
  for (std::int64_t b = 0; b < k / 256; ++b) {
    blocks[b].scale = QuantizeBlock(x + 256 * b, 256, blocks[b].q);
    for (int s = 0; s < 16; ++s) {
      blocks[b].sums[s] = static_cast<std::int16_t>(Sum(blocks[b].q + 16 * s, 16));
    }
    AddPairs(&blocks[b]);
  }
}

}  // namespace millrace::cpu::scalar
