#include "kernels/cpu/attention_body.h"

#include "kernels/cpu/float_kernels.h"
#include "kernels/cpu/lanes16_avx2.h"

namespace millrace::cpu::avx2 {

constinit const std::array<AttentionVariant, kKvDTypes> kAttention = {
    VariantOf<LanesAvx2, HalfBits>(KvDType::kF16, "avx2/F16"),
    VariantOf<LanesAvx2, float>(KvDType::kF32, "avx2/F32"),
    VariantOf<LanesAvx2, BlockQ8_0>(KvDType::kQ8_0, "avx2/Q8_0"),
    VariantOf<LanesAvx2, Fp8>(KvDType::kFp8, "avx2/Fp8"),
};

}  // namespace millrace::cpu::avx2
