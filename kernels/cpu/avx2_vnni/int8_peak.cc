#include "kernels/cpu/int8_peak.h"

#include <immintrin.h>

// Loops are unrolled wholly, or the sums would lie in memory.
namespace millrace::cpu::avx2_vnni {

std::int32_t Int8Peak(std::int64_t rounds) {
  __m256i sums[kInt8PeakChains];
#pragma GCC unroll 12
  for (int i = 0; i < kInt8PeakChains; ++i) sums[i] = _mm256_setzero_si256();
  const __m256i w = _mm256_set1_epi8(3);
  const __m256i x = _mm256_set1_epi8(-5);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kInt8PeakChains; ++i) {
      sums[i] = _mm256_dpbusd_avx_epi32(sums[i], w, x);
      asm volatile("" : "+x"(sums[i]));
    }
  }
  __m256i total = sums[0];
#pragma GCC unroll 12
  for (int i = 1; i < kInt8PeakChains; ++i) total = _mm256_add_epi32(total, sums[i]);
  return _mm256_extract_epi32(total, 0);
}

}  // namespace millrace::cpu::avx2_vnni
