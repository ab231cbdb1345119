// Quantisation of activations, 16 floats at a time; the definition is in kernels/cpu/quantize.h.
#include <immintrin.h>

#include "kernels/cpu/quantize_kernels.h"
#include "kernels/quant_blocks.h"

namespace millrace::cpu::avx2 {
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
  const __m256i mask = _mm256_set1_epi32(0x7FFFFFFF);
  __m256i max = _mm256_setzero_si256();
  for (int v = 0; v < 2 * kVectors; ++v) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 8 * v));
    max = _mm256_max_epu32(max, _mm256_and_si256(bits, mask));
  }
  __m128i half = _mm_max_epu32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
  half = _mm_max_epu32(half, _mm_shuffle_epi32(half, 0x4E));
  half = _mm_max_epu32(half, _mm_shuffle_epi32(half, 0xB1));
  return static_cast<std::uint32_t>(_mm_cvtsi128_si32(half));
}

__m256i Round8(const float* x, __m256 inverse) {
  const __m256i rounded = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
  return _mm256_max_epi32(rounded, _mm256_set1_epi32(-127));  // narrowing saturates at 127
}

std::int32_t SumBytes(__m128i bytes) {
  const __m128i pairs = _mm_maddubs_epi16(_mm_set1_epi8(1), bytes);
  __m128i sum = _mm_madd_epi16(pairs, _mm_set1_epi16(1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
  return _mm_cvtsi128_si32(sum);
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
  const __m256 factor = _mm256_set1_ps(inverse);
  for (int v = 0; v < kVectors; ++v) {
    // Packing works in 128-bit lanes: words come out as 0-3, 8-11, 4-7, 12-15.
    const __m256i mixed =
        _mm256_packs_epi32(Round8(x + 16 * v, factor), Round8(x + 16 * v + 8, factor));
    const __m256i words = _mm256_permute4x64_epi64(mixed, 0xD8);
    const __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16 * v), bytes);
    sums[v] = static_cast<std::int16_t>(SumBytes(bytes));
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

}  // namespace millrace::cpu::avx2
