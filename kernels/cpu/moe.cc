#include "kernels/cpu/moe.h"

#include "kernels/cpu/float_kernels.h"

namespace millrace::cpu {
namespace {

constexpr MoeVariant kVariants[] = {
    {Isa::kAvx512, "avx512", {avx512::Route, avx512::Swiglu, avx512::Combine, avx512::Add}},
    {Isa::kAvx2, "avx2", {avx2::Route, avx2::Swiglu, avx2::Combine, avx2::Add}},
    {Isa::kScalar, "scalar", {scalar::Route, scalar::Swiglu, scalar::Combine, scalar::Add}},
};

}  // namespace

std::span<const MoeVariant> MoeVariants() { return kVariants; }

const MoeVariant& SelectMoe(Isa isa) { return SelectVariant(kVariants, isa); }

}  // namespace millrace::cpu
