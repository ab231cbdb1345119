#include "kernels/cpu/matmul.h"

#include <vector>

#include "kernels/cpu/matmul_kernels.h"

namespace millrace::cpu {
namespace {

std::vector<MatmulVariant> JoinTables() {
  std::vector<MatmulVariant> variants;
  const auto append = [&variants](std::span<const MatmulVariant> table) {
    variants.insert(variants.end(), table.begin(), table.end());
  };
  append(avx512::kFloatMatmuls);
  append(avx512::kQuantisedMatmuls);
  append(avx2_vnni::kQuantisedMatmuls);
  append(avx2::kFloatMatmuls);
  append(avx2::kQuantisedMatmuls);
  append(scalar::kFloatMatmuls);
  append(scalar::kQuantisedMatmuls);
  return variants;
}

}  // namespace

std::string Name(const MatmulVariant& variant) {
  return std::string(IsaName(variant.isa)) + "/" + std::string(Info(variant.dtype).name);
}

std::span<const MatmulVariant> MatmulVariants() {
  static const std::vector<MatmulVariant> variants = JoinTables();
  return variants;
}

const MatmulVariant& SelectMatmul(DType dtype, Isa isa) {
  for (const MatmulVariant& variant : MatmulVariants()) {
    if (variant.dtype == dtype && variant.isa <= isa) return variant;
  }
  __builtin_unreachable();  // the table ends with a scalar entry for every type
}

}  // namespace millrace::cpu
