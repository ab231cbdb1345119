#include "kernels/cpu/exp_body.h"

#include "kernels/cpu/float_kernels.h"
#include "kernels/cpu/lanes16_avx512.h"

namespace millrace::cpu::avx512 {

void ExpArray(const float* x, std::int64_t n, float* y) { ExpArrayOf<LanesAvx512>(x, n, y); }

}  // namespace millrace::cpu::avx512
