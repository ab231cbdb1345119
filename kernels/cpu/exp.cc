#include "kernels/cpu/exp.h"

#include "kernels/cpu/float_kernels.h"

namespace millrace::cpu {
namespace {

constexpr ExpVariant kVariants[] = {
    {Isa::kAvx512, "avx512", avx512::ExpArray},
    {Isa::kAvx2, "avx2", avx2::ExpArray},
    {Isa::kScalar, "scalar", scalar::ExpArray},
};

}  // namespace

std::span<const ExpVariant> ExpVariants() { return kVariants; }

const ExpVariant& SelectExp(Isa isa) { return SelectVariant(kVariants, isa); }

}  // namespace millrace::cpu
