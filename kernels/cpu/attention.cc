#include "kernels/cpu/attention.h"

#include "kernels/cpu/float_kernels.h"

namespace millrace::cpu {
namespace {

constexpr AttentionVariant kVariants[] = {
    {Isa::kAvx512, KvDType::kF16, "avx512/F16", avx512::KvAppendF16, avx512::AttentionPartialF16,
     avx512::AttentionWholeF16, avx512::AttentionMerge},
    {Isa::kAvx512, KvDType::kF32, "avx512/F32", avx512::KvAppendF32, avx512::AttentionPartialF32,
     avx512::AttentionWholeF32, avx512::AttentionMerge},
    {Isa::kAvx512, KvDType::kQ8_0, "avx512/Q8_0", avx512::KvAppendQ8_0,
     avx512::AttentionPartialQ8_0, avx512::AttentionWholeQ8_0, avx512::AttentionMerge},
    {Isa::kAvx512, KvDType::kFp8, "avx512/Fp8", avx512::KvAppendFp8, avx512::AttentionPartialFp8,
     avx512::AttentionWholeFp8, avx512::AttentionMerge},
    {Isa::kAvx2, KvDType::kF16, "avx2/F16", avx2::KvAppendF16, avx2::AttentionPartialF16,
     avx2::AttentionWholeF16, avx2::AttentionMerge},
    {Isa::kAvx2, KvDType::kF32, "avx2/F32", avx2::KvAppendF32, avx2::AttentionPartialF32,
     avx2::AttentionWholeF32, avx2::AttentionMerge},
    {Isa::kAvx2, KvDType::kQ8_0, "avx2/Q8_0", avx2::KvAppendQ8_0, avx2::AttentionPartialQ8_0,
     avx2::AttentionWholeQ8_0, avx2::AttentionMerge},
    {Isa::kAvx2, KvDType::kFp8, "avx2/Fp8", avx2::KvAppendFp8, avx2::AttentionPartialFp8,
     avx2::AttentionWholeFp8, avx2::AttentionMerge},
    {Isa::kScalar, KvDType::kF16, "scalar/F16", scalar::KvAppendF16, scalar::AttentionPartialF16,
     scalar::AttentionWholeF16, scalar::AttentionMerge},
    {Isa::kScalar, KvDType::kF32, "scalar/F32", scalar::KvAppendF32, scalar::AttentionPartialF32,
     scalar::AttentionWholeF32, scalar::AttentionMerge},
    {Isa::kScalar, KvDType::kQ8_0, "scalar/Q8_0", scalar::KvAppendQ8_0,
     scalar::AttentionPartialQ8_0, scalar::AttentionWholeQ8_0, scalar::AttentionMerge},
    {Isa::kScalar, KvDType::kFp8, "scalar/Fp8", scalar::KvAppendFp8, scalar::AttentionPartialFp8,
     scalar::AttentionWholeFp8, scalar::AttentionMerge},
};

}  // namespace

std::span<const AttentionVariant> AttentionVariants() { return kVariants; }

const AttentionVariant& SelectAttention(KvDType dtype, Isa isa) {
  for (const AttentionVariant& variant : kVariants) {
    if (variant.dtype == dtype && variant.isa <= isa) return variant;
  }
  __builtin_unreachable();  // the table ends with scalar entries for every type
}

}  // namespace millrace::cpu
