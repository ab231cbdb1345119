// The functions behind the table of kernels/cpu/quantize.h. Internal to kernels/cpu.
#ifndef MILLRACE_KERNELS_CPU_QUANTIZE_KERNELS_H_
#define MILLRACE_KERNELS_CPU_QUANTIZE_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/quant_blocks.h"

namespace millrace::cpu {

namespace {  // of each level, with its flags

// The sums of 32 values, from those of 16.
[[maybe_unused]] inline void AddPairs(ActivationQ8x256* block) {
  for (int p = 0; p < 8; ++p) {
    block->pair_sums[p] = static_cast<std::int16_t>(block->sums[2 * p] + block->sums[2 * p + 1]);
  }
}

}  // namespace

namespace scalar {
void QuantizeRowQ8x32(const float* x, std::int64_t k, std::byte* out);
void QuantizeRowQ8x256(const float* x, std::int64_t k, std::byte* out);
}  // namespace scalar

namespace avx2 {
void QuantizeRowQ8x32(const float* x, std::int64_t k, std::byte* out);
void QuantizeRowQ8x256(const float* x, std::int64_t k, std::byte* out);
}  // namespace avx2

namespace avx512 {
void QuantizeRowQ8x32(const float* x, std::int64_t k, std::byte* out);
void QuantizeRowQ8x256(const float* x, std::int64_t k, std::byte* out);
}  // namespace avx512

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_QUANTIZE_KERNELS_H_
