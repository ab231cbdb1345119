#include "kernels/cpu/exp_body.h"

#include "kernels/cpu/float_kernels.h"
#include "kernels/cpu/lanes16_avx2.h"

namespace millrace::cpu::avx2 {

void ExpArray(const float* x, std::int64_t n, float* y) { ExpArrayOf<LanesAvx2>(x, n, y); }

}  // namespace millrace::cpu::avx2
