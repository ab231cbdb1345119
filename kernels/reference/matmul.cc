#include "kernels/reference/matmul.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/dequantize.h"
#include "kernels/quant_blocks.h"

namespace millrace::reference {
namespace {

// Where a block keeps the factor of its minimums; 0 where the type has none.
std::size_t MinimumOffset(DType dtype) {
  switch (dtype) {
    case DType::kQ4_1:
      return offsetof(BlockQ4_1, m);
    case DType::kQ5_1:
      return offsetof(BlockQ5_1, m);
    case DType::kQ2_K:
      return offsetof(BlockQ2_K, dmin);
    case DType::kQ4_K:
      return offsetof(BlockQ4_K, dmin);
    case DType::kQ5_K:
      return offsetof(BlockQ5_K, dmin);
    default:
      return 0;
  }
}

bool HasMinimums(DType dtype) { return MinimumOffset(dtype) != 0; }

// The row with its minimums set to zero: the term d * q alone.
std::vector<float> WithoutMinimums(DType dtype, const std::byte* w, std::int64_t k) {
  std::vector<std::byte> row(w, w + RowBytes(dtype, k));
  if (HasMinimums(dtype)) {
    const auto block = static_cast<std::size_t>(Info(dtype).block_bytes);
    for (std::size_t at = MinimumOffset(dtype); at < row.size(); at += block) {
      row[at] = row[at + 1] = std::byte{0};
    }
  }
  std::vector<float> out(static_cast<std::size_t>(k));
  DequantizeRow(dtype, row.data(), k, out.data());
  return out;
}

template <typename Block>
double QuantisedActivation(const std::byte* x, std::int64_t i) {
  constexpr std::int64_t kValues = sizeof(Block::q);
  const Block& block = reinterpret_cast<const Block*>(x)[i / kValues];
  return static_cast<double>(block.scale) * block.q[i % kValues];
}

double Activation(ActivationFormat format, const std::byte* x, std::int64_t i) {
  switch (format) {
    case ActivationFormat::kF32:
      return reinterpret_cast<const float*>(x)[i];
    case ActivationFormat::kQ8x32:
      return QuantisedActivation<ActivationQ8x32>(x, i);
    case ActivationFormat::kQ8x256:
      return QuantisedActivation<ActivationQ8x256>(x, i);
  }
  __builtin_unreachable();
}

}  // namespace

Product DotProduct(DType dtype, const std::byte* w, const std::byte* x, std::int64_t k) {
  std::vector<float> weights(static_cast<std::size_t>(k));
  DequantizeRow(dtype, w, k, weights.data());
  const std::vector<float> scaled = WithoutMinimums(dtype, w, k);
  Product product{0.0, 0.0};
  for (std::int64_t i = 0; i < k; ++i) {
    const double weight = weights[static_cast<std::size_t>(i)];
    const double part = scaled[static_cast<std::size_t>(i)];
    const double activation = Activation(Info(dtype).activation, x, i);
    product.value += weight * activation;
    product.magnitude += (std::abs(part) + std::abs(part - weight)) * std::abs(activation);
  }
  return product;
}

double ErrorBound(DType dtype, std::int64_t k, double magnitude) {
  const std::int64_t terms = HasMinimums(dtype) ? 2 : 1;
  const std::int64_t fmas =
      Info(dtype).block_values == 1 ? (k + 15) / 16 + 4 : k / Info(dtype).block_values * terms;
  return static_cast<double>(fmas + 6) * 0x1p-24 * magnitude;
}

}  // namespace millrace::reference
