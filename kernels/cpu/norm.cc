#include "kernels/cpu/norm.h"

#include "kernels/cpu/float_kernels.h"

namespace millrace::cpu {
namespace {

constexpr RmsNormVariant kVariants[] = {
    {Isa::kAvx512, "avx512", avx512::RmsNorm},
    {Isa::kAvx2, "avx2", avx2::RmsNorm},
    {Isa::kScalar, "scalar", scalar::RmsNorm},
};

}  // namespace

std::span<const RmsNormVariant> RmsNormVariants() { return kVariants; }

const RmsNormVariant& SelectRmsNorm(Isa isa) { return SelectVariant(kVariants, isa); }

}  // namespace millrace::cpu
