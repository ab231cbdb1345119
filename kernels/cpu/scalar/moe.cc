#include "kernels/cpu/moe_body.h"

#include "kernels/cpu/float_kernels.h"
#include "kernels/cpu/lanes16_scalar.h"

namespace millrace::cpu::scalar {

void Route(const float* logits, std::int32_t num_experts, std::int32_t k, bool normalise,
           std::int32_t* experts, float* weights) {
  RouteRow<LanesScalar>(logits, num_experts, k, normalise, experts, weights);
}

void Swiglu(const float* gate, const float* up, std::int64_t n, float* out) {
  SwigluRow<LanesScalar>(gate, up, n, out);
}

void Combine(const float* x, const float* rows, std::int64_t row_stride, const float* weights,
             std::int32_t k, std::int64_t n, float* y) {
  CombineRow<LanesScalar>(x, rows, row_stride, weights, k, n, y);
}

void Add(const float* a, const float* b, std::int64_t n, float* y) {
  AddRow<LanesScalar>(a, b, n, y);
}

}  // namespace millrace::cpu::scalar
