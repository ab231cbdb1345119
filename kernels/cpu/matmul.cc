#include "kernels/cpu/matmul.h"

#include "kernels/cpu/matmul_kernels.h"

namespace millrace::cpu {
namespace {

constexpr MatmulVariant kVariants[] = {
    {Isa::kAvx512, DType::kF32, "avx512/F32", avx512::MatmulF32},
    {Isa::kAvx512, DType::kF16, "avx512/F16", avx512::MatmulF16},
    {Isa::kAvx512, DType::kBF16, "avx512/BF16", avx512::MatmulBF16},
    {Isa::kAvx512, DType::kQ8_0, "avx512/Q8_0", avx512::MatmulQ8_0},
    {Isa::kAvx512, DType::kQ4_0, "avx512/Q4_0", avx512::MatmulQ4_0},
    {Isa::kAvx512, DType::kQ4_1, "avx512/Q4_1", avx512::MatmulQ4_1},
    {Isa::kAvx512, DType::kQ4_K, "avx512/Q4_K", avx512::MatmulQ4_K},
    {Isa::kAvx512, DType::kQ5_K, "avx512/Q5_K", avx512::MatmulQ5_K},
    {Isa::kAvx512, DType::kQ6_K, "avx512/Q6_K", avx512::MatmulQ6_K},
    {Isa::kAvx2, DType::kF32, "avx2/F32", avx2::MatmulF32},
    {Isa::kAvx2, DType::kF16, "avx2/F16", avx2::MatmulF16},
    {Isa::kAvx2, DType::kBF16, "avx2/BF16", avx2::MatmulBF16},
    {Isa::kAvx2, DType::kQ8_0, "avx2/Q8_0", avx2::MatmulQ8_0},
    {Isa::kAvx2, DType::kQ4_0, "avx2/Q4_0", avx2::MatmulQ4_0},
    {Isa::kAvx2, DType::kQ4_1, "avx2/Q4_1", avx2::MatmulQ4_1},
    {Isa::kAvx2, DType::kQ4_K, "avx2/Q4_K", avx2::MatmulQ4_K},
    {Isa::kAvx2, DType::kQ5_K, "avx2/Q5_K", avx2::MatmulQ5_K},
    {Isa::kAvx2, DType::kQ6_K, "avx2/Q6_K", avx2::MatmulQ6_K},
    {Isa::kScalar, DType::kF32, "scalar/F32", scalar::MatmulF32},
    {Isa::kScalar, DType::kF16, "scalar/F16", scalar::MatmulF16},
    {Isa::kScalar, DType::kBF16, "scalar/BF16", scalar::MatmulBF16},
    {Isa::kScalar, DType::kQ8_0, "scalar/Q8_0", scalar::MatmulQ8_0},
    {Isa::kScalar, DType::kQ4_0, "scalar/Q4_0", scalar::MatmulQ4_0},
    {Isa::kScalar, DType::kQ4_1, "scalar/Q4_1", scalar::MatmulQ4_1},
    {Isa::kScalar, DType::kQ4_K, "scalar/Q4_K", scalar::MatmulQ4_K},
    {Isa::kScalar, DType::kQ5_K, "scalar/Q5_K", scalar::MatmulQ5_K},
    {Isa::kScalar, DType::kQ6_K, "scalar/Q6_K", scalar::MatmulQ6_K},
};

}  // namespace

std::span<const MatmulVariant> MatmulVariants() { return kVariants; }

const MatmulVariant& SelectMatmul(DType dtype, Isa isa) {
  for (const MatmulVariant& variant : kVariants) {
    if (variant.dtype == dtype && variant.isa <= isa) return variant;
  }
  __builtin_unreachable();  // the table ends with a scalar entry for every type
}

}  // namespace millrace::cpu
