#include "kernels/cpu/rope.h"

#include <cmath>

#include "kernels/cpu/float_kernels.h"

namespace millrace::cpu {
namespace {

constexpr RopeVariant kVariants[] = {
    {Isa::kAvx512, "avx512", avx512::Rope},
    {Isa::kAvx2, "avx2", avx2::Rope},
    {Isa::kScalar, "scalar", scalar::Rope},
};

}  // namespace

void RopeAngles(std::int64_t position, std::span<const double> inverse_frequency, double magnitude,
                float* cosines, float* sines) {
  for (std::size_t i = 0; i < inverse_frequency.size(); ++i) {
    const double angle = static_cast<double>(position) * inverse_frequency[i];
    cosines[i] = static_cast<float>(magnitude * std::cos(angle));
    sines[i] = static_cast<float>(magnitude * std::sin(angle));
  }
}

std::span<const RopeVariant> RopeVariants() { return kVariants; }

const RopeVariant& SelectRope(Isa isa) { return SelectVariant(kVariants, isa); }

}  // namespace millrace::cpu
