// Root mean square norm of one row:
//
//   y[i] = (x[i] * r) * w[i],   r = 1 / sqrt(sum of x[i]^2 / n + eps)
//
// in f32: the sum uses 16 virtual lanes and the fixed tree, division and square root are IEEE's.
// Thread-safe.
#ifndef MILLRACE_KERNELS_CPU_NORM_H_
#define MILLRACE_KERNELS_CPU_NORM_H_

#include <cstdint>
#include <span>

#include "kernels/cpu/isa.h"

namespace millrace::cpu {

// x [n], weight [n], y [n]; y may be x.
using RmsNormFn = void (*)(const float* x, const float* weight, std::int64_t n, float eps,
                           float* y);

struct RmsNormVariant {
  Isa isa;
  const char* name;
  RmsNormFn fn;
};

std::span<const RmsNormVariant> RmsNormVariants();
const RmsNormVariant& SelectRmsNorm(Isa isa);

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_NORM_H_
