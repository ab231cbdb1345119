#include "kernels/cpu/norm_body.h"

#include "kernels/cpu/float_kernels.h"
#include "kernels/cpu/lanes16_avx512.h"

namespace millrace::cpu::avx512 {

void RmsNorm(const float* x, const float* weight, std::int64_t n, float eps, float* y) {
  RmsNormRow<LanesAvx512>(x, weight, n, eps, y);
}

}  // namespace millrace::cpu::avx512
