// Products of float weights; blocks of 2 rows and 2 columns, with their operands, fit 16 registers.
#include "kernels/cpu/matmul_float_body.h"

#include "kernels/cpu/lanes16_avx2.h"
#include "kernels/cpu/matmul_kernels.h"

namespace millrace::cpu::avx2 {

const MatmulVariant kFloatMatmuls[kFloatTypes] = {
    {Isa::kAvx2, DType::kF32, 1, MatmulFloats<LanesAvx2, DType::kF32, 2, 2>},
    {Isa::kAvx2, DType::kF16, 1, MatmulFloats<LanesAvx2, DType::kF16, 2, 2>},
    {Isa::kAvx2, DType::kBF16, 1, MatmulFloats<LanesAvx2, DType::kBF16, 2, 2>},
};

}  // namespace millrace::cpu::avx2
