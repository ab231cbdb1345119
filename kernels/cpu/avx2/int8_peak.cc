// vpmaddubsw and an addition in int16, as the products of this level do; the step to int32, once
// for several of them, is left out.
#include "kernels/cpu/int8_peak.h"

#include <immintrin.h>

// Loops are unrolled wholly, or the sums would lie in memory.
namespace millrace::cpu::avx2 {

std::int32_t Int8Peak(std::int64_t rounds) {
  __m256i sums[kInt8PeakChains];
#pragma GCC unroll 12
  for (int i = 0; i < kInt8PeakChains; ++i) sums[i] = _mm256_setzero_si256();
  __m256i w = _mm256_set1_epi8(3);
  __m256i x = _mm256_set1_epi8(-5);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kInt8PeakChains; ++i) {
      asm volatile("" : "+x"(w), "+x"(x));  // as far as is known, other numbers each time
      sums[i] = _mm256_add_epi16(sums[i], _mm256_maddubs_epi16(w, x));
    }
  }
  __m256i total = sums[0];
#pragma GCC unroll 12
  for (int i = 1; i < kInt8PeakChains; ++i) total = _mm256_add_epi16(total, sums[i]);
  return _mm256_extract_epi16(total, 0);
}

}  // namespace millrace::cpu::avx2
