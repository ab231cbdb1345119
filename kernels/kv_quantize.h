// A row of K or V in the cache's type q8_0: for each 32 values
//
//   d = half(max|x| / 127),   q[i] = clamp(round-half-even(x[i] * (1 / d)), -127, 127)
//
// with q = 0 where d is 0. A NaN or an infinity makes d NaN, and so every value that is read back.
// In the type fp8 each value by itself, see kernels/fp8.h.
//
// One portable function for all levels of kernels. Thread-safe (pure).
#ifndef MILLRACE_KERNELS_KV_QUANTIZE_H_
#define MILLRACE_KERNELS_KV_QUANTIZE_H_

#include <cstdint>

#include "kernels/fp8.h"
#include "kernels/quant_blocks.h"

namespace millrace {

// row is [n], out [n / 32]. REQUIRES: n is a multiple of 32.
void QuantizeKvRow(const float* row, std::int32_t n, BlockQ8_0* out);
// row and out are [n].
void QuantizeKvRow(const float* row, std::int32_t n, Fp8* out);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_KV_QUANTIZE_H_
