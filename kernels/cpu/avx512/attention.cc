#include "kernels/cpu/attention_body.h"

#include "kernels/cpu/float_kernels.h"
#include "kernels/cpu/lanes16_avx512.h"

namespace millrace::cpu::avx512 {

constinit const std::array<AttentionVariant, kKvDTypes> kAttention = {
    VariantOf<LanesAvx512, HalfBits>(KvDType::kF16, "avx512/F16"),
    VariantOf<LanesAvx512, float>(KvDType::kF32, "avx512/F32"),
    VariantOf<LanesAvx512, BlockQ8_0>(KvDType::kQ8_0, "avx512/Q8_0"),
    VariantOf<LanesAvx512, Fp8>(KvDType::kFp8, "avx512/Fp8"),
};

}  // namespace millrace::cpu::avx512
