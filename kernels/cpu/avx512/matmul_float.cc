// Products of float weights; blocks of 4 rows and 4 columns, with their operands, fit 32 registers.
#include "kernels/cpu/matmul_float_body.h"

#include "kernels/cpu/lanes16_avx512.h"
#include "kernels/cpu/matmul_kernels.h"

namespace millrace::cpu::avx512 {

void MatmulF32(const MatmulParams& p) { MatmulFloats<LanesAvx512, DType::kF32, 4, 4>(p); }
void MatmulF16(const MatmulParams& p) { MatmulFloats<LanesAvx512, DType::kF16, 4, 4>(p); }
void MatmulBF16(const MatmulParams& p) { MatmulFloats<LanesAvx512, DType::kBF16, 4, 4>(p); }

}  // namespace millrace::cpu::avx512
