// Products of float weights; blocks of 4 rows and 4 columns, with their operands, fit 32 registers.
#include "kernels/cpu/matmul_float_body.h"

#include "kernels/cpu/lanes16_avx512.h"
#include "kernels/cpu/matmul_kernels.h"

namespace millrace::cpu::avx512 {

const MatmulVariant kFloatMatmuls[kFloatTypes] = {
    {Isa::kAvx512, DType::kF32, 1, MatmulFloats<LanesAvx512, DType::kF32, 4, 4>},
    {Isa::kAvx512, DType::kF16, 1, MatmulFloats<LanesAvx512, DType::kF16, 4, 4>},
    {Isa::kAvx512, DType::kBF16, 1, MatmulFloats<LanesAvx512, DType::kBF16, 4, 4>},
};

}  // namespace millrace::cpu::avx512
