// Quantisation of activations, 16 floats at a time; the definition is in kernels/cpu/quantize.h.
#include <immintrin.h>

#include "kernels/cpu/quantize_kernels.h"
#include "kernels/quant_blocks.h"

namespace millrace::cpu::avx512 {
namespace {

constexpr std::uint32_t kInfinityBits = 0x7F800000U;
constexpr float kNan = __builtin_nanf("");

std::uint32_t Bits(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// The largest |x| of kVectors * 16 floats by its bits, whose order is that of the magnitudes.
template <int kVectors>
std::uint32_t MaxMagnitudeBits(const float* x) {
  const __m512i mask = _mm512_set1_epi32(0x7FFFFFFF);
  __m512i max = _mm512_setzero_si512();
  for (int v = 0; v < kVectors; ++v) {
    max = _mm512_max_epu32(max, _mm512_and_si512(_mm512_loadu_si512(x + 16 * v), mask));
  }
  return _mm512_reduce_max_epu32(max);
}

// Fills q, sums[v] = the sum of q[16v .. 16v+15], and returns the scale.
template <int kVectors>
float QuantizeBlock(const float* x, std::int8_t* q, std::int16_t* sums) {
  const std::uint32_t max_bits = MaxMagnitudeBits<kVectors>(x);
  float max;
  __builtin_memcpy(&max, &max_bits, sizeof(max));
  const float inverse = 127.0F / max;
  if (max_bits >= kInfinityBits || Bits(inverse) >= kInfinityBits) {
    __builtin_memset(q, 0, 16 * kVectors);
    __builtin_memset(sums, 0, sizeof(std::int16_t) * kVectors);
    return max_bits >= kInfinityBits ? kNan : 0.0F;
  }
  const __m512i least = _mm512_set1_epi32(-127);
  for (int v = 0; v < kVectors; ++v) {
    const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(x + 16 * v), _mm512_set1_ps(inverse));
    // The narrowing saturates at 127, the comparison at -127.
    const __m512i rounded = _mm512_max_epi32(_mm512_cvtps_epi32(scaled), least);
    const __m128i bytes = _mm512_cvtsepi32_epi8(rounded);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16 * v), bytes);
    sums[v] = static_cast<std::int16_t>(_mm512_reduce_add_epi32(rounded));
  }
  return max / 127.0F;
}

}  // namespace

void QuantizeRowQ8x32(const float* x, std::int64_t k, std::byte* out) {
  auto* blocks = reinterpret_cast<ActivationQ8x32*>(out);
  for (std::int64_t b = 0; b < k / 32; ++b) {
    std::int16_t sums[2];
    blocks[b].scale = QuantizeBlock<2>(x + 32 * b, blocks[b].q, sums);
    blocks[b].sum = sums[0] + sums[1];
  }
}

void QuantizeRowQ8x256(const float* x, std::int64_t k, std::byte* out) {
  auto* blocks = reinterpret_cast<ActivationQ8x256*>(out);
  for (std::int64_t b = 0; b < k / 256; ++b) {
    blocks[b].scale = QuantizeBlock<16>(x + 256 * b, blocks[b].q, blocks[b].sums);
    AddPairs(&blocks[b]);
  }
}

}  // namespace millrace::cpu::avx512
