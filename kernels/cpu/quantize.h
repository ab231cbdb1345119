// Activations from f32 to the formats of kernels/quant_blocks.h, once for all consumers of a
// format:
//
//   scale = max|x| / 127,   q[i] = round-half-even(x[i] * (127 / max|x|)), clamped to [-127, 127]
//
// A block of zeros has scale 0 and q 0, and so has one so small that 127 / max|x| overflows (max|x|
// below 3.8e-37). A block with a NaN or an infinity has scale NaN and q 0, so that the fault
// reaches the logits of its own row and nothing else. Thread-safe.
#ifndef MILLRACE_KERNELS_CPU_QUANTIZE_H_
#define MILLRACE_KERNELS_CPU_QUANTIZE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cpu/isa.h"
#include "kernels/dtype.h"

namespace millrace::cpu {

// Bytes of a row of k values. REQUIRES: k is a multiple of 32 (kQ8x32) or 256 (kQ8x256).
std::int64_t ActivationRowBytes(ActivationFormat format, std::int64_t k);

// Writes one row: `x` is [k], `out` is ActivationRowBytes(format, k) bytes, 4-byte aligned.
using QuantizeRowFn = void (*)(const float* x, std::int64_t k, std::byte* out);

struct QuantizeVariant {
  Isa isa;
  ActivationFormat format;  // kF32 is a copy
  const char* name;
  QuantizeRowFn fn;
};

std::span<const QuantizeVariant> QuantizeVariants();
const QuantizeVariant& SelectQuantize(ActivationFormat format, Isa isa);

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_QUANTIZE_H_
