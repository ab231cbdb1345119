#include "kernels/cpu/exp_body.h"

#include "kernels/cpu/float_kernels.h"
#include "kernels/cpu/lanes16_scalar.h"

namespace millrace::cpu::scalar {

void ExpArray(const float* x, std::int64_t n, float* y) { ExpArrayOf<LanesScalar>(x, n, y); }

}  // namespace millrace::cpu::scalar
