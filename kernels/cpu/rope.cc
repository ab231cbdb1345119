#include "kernels/cpu/rope.h"

#include "kernels/cpu/float_kernels.h"

namespace millrace::cpu {
namespace {

constexpr RopeVariant kVariants[] = {
    {Isa::kAvx512, "avx512", avx512::Rope},
    {Isa::kAvx2, "avx2", avx2::Rope},
    {Isa::kScalar, "scalar", scalar::Rope},
};

}  // namespace

std::span<const RopeVariant> RopeVariants() { return kVariants; }

const RopeVariant& SelectRope(Isa isa) { return SelectVariant(kVariants, isa); }

}  // namespace millrace::cpu
