#include "kernels/cpu/int8_peak.h"

#include <immintrin.h>

// Loops are unrolled wholly, or the sums would lie in memory.
namespace millrace::cpu::avx512 {

std::int32_t Int8Peak(std::int64_t rounds) {
  __m512i sums[kInt8PeakChains];
#pragma GCC unroll 12
  for (int i = 0; i < kInt8PeakChains; ++i) sums[i] = _mm512_setzero_si512();
  const __m512i w = _mm512_set1_epi8(3);
  const __m512i x = _mm512_set1_epi8(-5);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kInt8PeakChains; ++i) {
      sums[i] = _mm512_dpbusd_epi32(sums[i], w, x);
      asm volatile("" : "+v"(sums[i]));
    }
  }
  __m512i total = sums[0];
#pragma GCC unroll 12
  for (int i = 1; i < kInt8PeakChains; ++i) total = _mm512_add_epi32(total, sums[i]);
  alignas(64) std::int32_t lanes[16];
  _mm512_store_si512(lanes, total);
  return lanes[0];
}

}  // namespace millrace::cpu::avx512
