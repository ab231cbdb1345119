#include "kernels/cpu/int8_peak.h"

namespace millrace::cpu {
namespace {

constexpr std::int64_t Operations(std::int64_t register_bytes) {
  return 2 * register_bytes * kInt8PeakChains;
}

constexpr Int8PeakVariant kVariants[] = {
    {Isa::kAvx512, Operations(64), avx512::Int8Peak},
    {Isa::kAvx2Vnni, Operations(32), avx2_vnni::Int8Peak},
    {Isa::kAvx2, Operations(32), avx2::Int8Peak},
    {Isa::kScalar, Operations(1), scalar::Int8Peak},
};

}  // namespace

std::span<const Int8PeakVariant> Int8PeakVariants() { return kVariants; }

const Int8PeakVariant& SelectInt8Peak(Isa isa) { return SelectVariant(kVariants, isa); }

}  // namespace millrace::cpu
