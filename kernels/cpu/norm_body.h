// Root mean square norm for any lanes type (kernels/cpu/lanes16_scalar.h); the definition is in
// kernels/cpu/norm.h. Internal to kernels/cpu.
#ifndef MILLRACE_KERNELS_CPU_NORM_BODY_H_
#define MILLRACE_KERNELS_CPU_NORM_BODY_H_

#include <cstdint>

namespace millrace::cpu {

template <typename L>
float SumOfSquares(const float* x, std::int64_t n) {
  typename L::Reg sum = L::Set1(0.0F);
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const typename L::Reg v = L::Load(x + i);
    sum = L::Fma(v, v, sum);
  }
  if (i < n) {
    const typename L::Reg v = L::LoadTail(x + i, static_cast<int>(n - i), 0.0F);
    sum = L::Fma(v, v, sum);
  }
  return L::Sum(sum);
}

template <typename L>
void RmsNormRow(const float* x, const float* weight, std::int64_t n, float eps, float* y) {
  const float r = 1.0F / L::Sqrt1(SumOfSquares<L>(x, n) / static_cast<float>(n) + eps);
  const typename L::Reg factor = L::Set1(r);
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    L::Store(y + i, L::Mul(L::Mul(L::Load(x + i), factor), L::Load(weight + i)));
  }
  for (; i < n; ++i) y[i] = (x[i] * r) * weight[i];
}

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_NORM_BODY_H_
