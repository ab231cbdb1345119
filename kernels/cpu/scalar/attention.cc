#include "kernels/cpu/attention_body.h"

#include "kernels/cpu/float_kernels.h"
#include "kernels/cpu/lanes16_scalar.h"

namespace millrace::cpu::scalar {

constinit const std::array<AttentionVariant, kKvDTypes> kAttention = {
    VariantOf<LanesScalar, HalfBits>(KvDType::kF16, "scalar/F16"),
    VariantOf<LanesScalar, float>(KvDType::kF32, "scalar/F32"),
    VariantOf<LanesScalar, BlockQ8_0>(KvDType::kQ8_0, "scalar/Q8_0"),
    VariantOf<LanesScalar, Fp8>(KvDType::kFp8, "scalar/Fp8"),
};

}  // namespace millrace::cpu::scalar
