#include "kernels/cpu/quantize.h"

#include <cstring>

#include "kernels/cpu/quantize_kernels.h"
#include "kernels/quant_blocks.h"

namespace millrace::cpu {
namespace {

void CopyRow(const float* x, std::int64_t k, std::byte* out) {
  std::memcpy(out, x, static_cast<std::size_t>(k) * sizeof(float));
}

constexpr QuantizeVariant kVariants[] = {
    {Isa::kAvx512, ActivationFormat::kQ8x32, "avx512/Q8x32", avx512::QuantizeRowQ8x32},
    {Isa::kAvx512, ActivationFormat::kQ8x256, "avx512/Q8x256", avx512::QuantizeRowQ8x256},
    {Isa::kAvx2, ActivationFormat::kQ8x32, "avx2/Q8x32", avx2::QuantizeRowQ8x32},
    {Isa::kAvx2, ActivationFormat::kQ8x256, "avx2/Q8x256", avx2::QuantizeRowQ8x256},
    {Isa::kScalar, ActivationFormat::kF32, "copy", CopyRow},
    {Isa::kScalar, ActivationFormat::kQ8x32, "scalar/Q8x32", scalar::QuantizeRowQ8x32},
    {Isa::kScalar, ActivationFormat::kQ8x256, "scalar/Q8x256", scalar::QuantizeRowQ8x256},
};

}  // namespace

std::int64_t ActivationRowBytes(ActivationFormat format, std::int64_t k) {
  switch (format) {
    case ActivationFormat::kF32:
      return k * static_cast<std::int64_t>(sizeof(float));
    case ActivationFormat::kQ8x32:
      return k / 32 * static_cast<std::int64_t>(sizeof(ActivationQ8x32));
    case ActivationFormat::kQ8x256:
      return k / 256 * static_cast<std::int64_t>(sizeof(ActivationQ8x256));
  }
  __builtin_unreachable();
}

std::span<const QuantizeVariant> QuantizeVariants() { return kVariants; }

const QuantizeVariant& SelectQuantize(ActivationFormat format, Isa isa) {
  for (const QuantizeVariant& variant : kVariants) {
    if (variant.format == format && variant.isa <= isa) return variant;
  }
  __builtin_unreachable();  // the table ends with a scalar entry for every format
}

}  // namespace millrace::cpu
