#include "kernels/cpu/norm_body.h"

#include "kernels/cpu/float_kernels.h"
#include "kernels/cpu/lanes16_scalar.h"

namespace millrace::cpu::scalar {

void RmsNorm(const float* x, const float* weight, std::int64_t n, float eps, float* y) {
  RmsNormRow<LanesScalar>(x, weight, n, eps, y);
}

}  // namespace millrace::cpu::scalar
