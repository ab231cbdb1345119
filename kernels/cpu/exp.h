// The e^x of the numerics, elementwise: y[i] = exp(x[i]), by the operations of
// kernels/cpu/exp_body.h, which states its range and error. Softmax and SwiGLU have it built in;
// this is for tests and for whoever needs the same bits. Thread-safe.
#ifndef MILLRACE_KERNELS_CPU_EXP_H_
#define MILLRACE_KERNELS_CPU_EXP_H_

#include <cstdint>
#include <span>

#include "kernels/cpu/isa.h"

namespace millrace::cpu {

// x [n], y [n]; y may be x.
using ExpFn = void (*)(const float* x, std::int64_t n, float* y);

struct ExpVariant {
  Isa isa;
  const char* name;
  ExpFn fn;
};

std::span<const ExpVariant> ExpVariants();
const ExpVariant& SelectExp(Isa isa);

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_EXP_H_
