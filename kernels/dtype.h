// Element types of tensors, as GGUF files name them, and the sizes of their blocks.
// Leaf header: nothing but the standard library. Thread-safe (constants).
#ifndef MILLRACE_KERNELS_DTYPE_H_
#define MILLRACE_KERNELS_DTYPE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace millrace {

// What we can read. More of GGUF's types join here when their kernels exist.
enum class DType : std::uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kIQ4_NL,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_XS,
};

// The formats of activations that weights are multiplied with; docs/numerics.md, "Activations".
enum class ActivationFormat : std::uint8_t {
  kF32,     // float weights: F32, F16, BF16
  kQ8x32,   // int8 in [-127, 127], one f32 scale for 32 values: types of 32
  kQ8x256,  // int8 in [-127, 127], one f32 scale for 256 values: types of 256
};

struct DTypeInfo {
  DType dtype;
  std::string_view name;      // as GGUF tools print it
  std::uint32_t ggml_type;    // the number in the file
  std::int32_t block_values;  // values in a block; a row is a whole number of blocks
  std::int32_t block_bytes;
  ActivationFormat activation;
};

inline constexpr std::array<DTypeInfo, 15> kDTypes = {{
    {DType::kF32, "F32", 0, 1, 4, ActivationFormat::kF32},
    {DType::kF16, "F16", 1, 1, 2, ActivationFormat::kF32},
    {DType::kBF16, "BF16", 30, 1, 2, ActivationFormat::kF32},
    {DType::kQ8_0, "Q8_0", 8, 32, 34, ActivationFormat::kQ8x32},
    {DType::kQ4_0, "Q4_0", 2, 32, 18, ActivationFormat::kQ8x32},
    {DType::kQ4_1, "Q4_1", 3, 32, 20, ActivationFormat::kQ8x32},
    {DType::kQ5_0, "Q5_0", 6, 32, 22, ActivationFormat::kQ8x32},
    {DType::kQ5_1, "Q5_1", 7, 32, 24, ActivationFormat::kQ8x32},
    {DType::kIQ4_NL, "IQ4_NL", 20, 32, 18, ActivationFormat::kQ8x32},
    {DType::kQ2_K, "Q2_K", 10, 256, 84, ActivationFormat::kQ8x256},
    {DType::kQ3_K, "Q3_K", 11, 256, 110, ActivationFormat::kQ8x256},
    {DType::kQ4_K, "Q4_K", 12, 256, 144, ActivationFormat::kQ8x256},
    {DType::kQ5_K, "Q5_K", 13, 256, 176, ActivationFormat::kQ8x256},
    {DType::kQ6_K, "Q6_K", 14, 256, 210, ActivationFormat::kQ8x256},
    {DType::kIQ4_XS, "IQ4_XS", 23, 256, 136, ActivationFormat::kQ8x256},
}};

constexpr const DTypeInfo& Info(DType dtype) { return kDTypes[static_cast<std::size_t>(dtype)]; }

constexpr std::optional<DType> DTypeFromGgml(std::uint32_t ggml_type) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.ggml_type == ggml_type) return info.dtype;
  }
  return std::nullopt;
}

// Bytes of a row of `k` values. REQUIRES: k is a multiple of the type's block_values.
constexpr std::int64_t RowBytes(DType dtype, std::int64_t k) {
  return k / Info(dtype).block_values * Info(dtype).block_bytes;
}

}  // namespace millrace

#endif  // MILLRACE_KERNELS_DTYPE_H_
