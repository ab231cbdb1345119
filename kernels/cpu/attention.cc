#include "kernels/cpu/attention.h"

#include <vector>

#include "kernels/cpu/float_kernels.h"

namespace millrace::cpu {
namespace {

std::vector<AttentionVariant> JoinTables() {
  std::vector<AttentionVariant> variants;
  for (const auto* table : {&avx512::kAttention, &avx2::kAttention, &scalar::kAttention}) {
    variants.insert(variants.end(), table->begin(), table->end());
  }
  return variants;
}

}  // namespace

std::span<const AttentionVariant> AttentionVariants() {
  static const std::vector<AttentionVariant> variants = JoinTables();
  return variants;
}

const AttentionVariant& SelectAttention(KvDType dtype, Isa isa) {
  for (const AttentionVariant& variant : AttentionVariants()) {
    if (variant.dtype == dtype && variant.isa <= isa) return variant;
  }
  __builtin_unreachable();  // the table ends with scalar entries for every type
}

}  // namespace millrace::cpu
