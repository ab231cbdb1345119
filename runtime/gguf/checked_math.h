// 64-bit arithmetic on numbers from a file: nullopt instead of a wrapped result. All sizes and
// offsets of the GGUF reader are computed with these. Leaf header, thread-safe.
#ifndef MILLRACE_RUNTIME_GGUF_CHECKED_MATH_H_
#define MILLRACE_RUNTIME_GGUF_CHECKED_MATH_H_

#include <cstdint>
#include <optional>
#include <span>

#include "kernels/dtype.h"

namespace millrace {

inline std::optional<std::uint64_t> CheckedAdd(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

inline std::optional<std::uint64_t> CheckedMultiply(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// `value` rounded up to a multiple of `alignment`. REQUIRES: alignment is a power of two.
inline std::optional<std::uint64_t> CheckedAlign(std::uint64_t value, std::uint64_t alignment) {
  const std::optional<std::uint64_t> sum = CheckedAdd(value, alignment - 1);
  if (!sum) return std::nullopt;
  return *sum & ~(alignment - 1);
}

// Bytes of a tensor whose dimensions are `dims`, innermost first (the row length first, as in the
// file). Nullopt when a dimension is zero, the row is not a whole number of blocks, or the number
// of values or of bytes passes 2^63 - 1.
inline std::optional<std::uint64_t> CheckedTensorBytes(DType dtype,
                                                       std::span<const std::uint64_t> dims) {
  constexpr std::uint64_t kMax = INT64_MAX;  // shapes and sizes are signed further up
  const auto block_values = static_cast<std::uint64_t>(Info(dtype).block_values);
  if (dims.empty() || dims[0] % block_values != 0) return std::nullopt;
  std::uint64_t values = 1;
  for (const std::uint64_t dim : dims) {
    const std::optional<std::uint64_t> product = CheckedMultiply(values, dim);
    if (!product || *product == 0 || *product > kMax) return std::nullopt;
    values = *product;
  }
  const std::optional<std::uint64_t> bytes =
      CheckedMultiply(values / block_values, static_cast<std::uint64_t>(Info(dtype).block_bytes));
  if (!bytes || *bytes > kMax) return std::nullopt;
  return bytes;
}

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_GGUF_CHECKED_MATH_H_
