// The small operations around the experts, each on one row, all in f32. Thread-safe.
#ifndef MILLRACE_KERNELS_CPU_MOE_H_
#define MILLRACE_KERNELS_CPU_MOE_H_

#include <cstdint>
#include <span>

#include "kernels/cpu/isa.h"

namespace millrace::cpu {

struct MoeFns {
  // Router: probabilities = softmax over all experts (max subtracted, sum in 16 virtual lanes and
  // the fixed tree), the top k by probability in descending order, ties to the lower index, then
  // weight[r] = p[r] / (p[0] + ... + p[k-1]) with the sum in rank order; where `normalise` is false
  // weight[r] = p[r]. A NaN sorts as the smallest, so an index is always in [0, num_experts).
  // logits [num_experts], experts [k], weights [k].
  void (*route)(const float* logits, std::int32_t num_experts, std::int32_t k, bool normalise,
                std::int32_t* experts, float* weights);
  // SwiGLU: out[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)); all [n]; out may be gate.
  void (*swiglu)(const float* gate, const float* up, std::int64_t n, float* out);
  // Combine in rank order: y[i] = x[i] + (fma(w[k-1], e[k-1][i], ... fma(w[1], e[1][i], w[0] *
  // e[0][i]))) with e[r] = rows + r * row_stride. x, y are [n]; y may be x.
  void (*combine)(const float* x, const float* rows, std::int64_t row_stride, const float* weights,
                  std::int32_t k, std::int64_t n, float* y);
  // y[i] = a[i] + b[i]; y may be either.
  void (*add)(const float* a, const float* b, std::int64_t n, float* y);
};

struct MoeVariant {
  Isa isa;
  const char* name;
  MoeFns fns;
};

std::span<const MoeVariant> MoeVariants();
const MoeVariant& SelectMoe(Isa isa);

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_MOE_H_
