#include "kernels/cpu/int8_peak.h"

namespace millrace::cpu::scalar {

std::int32_t Int8Peak(std::int64_t rounds) {
  std::int32_t sums[kInt8PeakChains] = {};
  std::int32_t w = 3;
  std::int32_t x = -5;
  for (std::int64_t round = 0; round < rounds; ++round) {
    asm volatile("" : "+r"(w), "+r"(x));  // not the same product each time, as far as is known
    for (std::int32_t& sum : sums) {
      sum += w * x;
      asm volatile("" : "+r"(sum));  // one by one: this is the level without vectors
    }
  }
  std::int32_t total = 0;
  for (const std::int32_t sum : sums) total += sum;
  return total;
}

}  // namespace millrace::cpu::scalar
