// Random rows of weights that a file could hold, for tests and benchmarks of kernels.
#ifndef MILLRACE_TESTS_KERNELS_RANDOM_WEIGHTS_H_
#define MILLRACE_TESTS_KERNELS_RANDOM_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/dequantize.h"
#include "kernels/dtype.h"

namespace millrace::testing {

inline void StoreHalf(std::byte* at, float value) {
  const HalfBits half = FloatToHalf(value);
  std::memcpy(at, &half, sizeof(half));
}

// Where the half-precision scales of a quantised block lie.
inline std::vector<std::size_t> HalfOffsets(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ5_0:
    case DType::kIQ4_NL:
    case DType::kIQ4_XS:
      return {0};
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ2_K:
      return {80, 82};
    case DType::kQ3_K:
      return {108};
    case DType::kQ6_K:
      return {208};
    default:
      return {};
  }
}

// `count` values of a float type, uniform in [-1, 1].
inline void FillFloats(DType dtype, std::byte* out, std::int64_t count, std::mt19937& rng) {
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = uniform(rng);
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    const auto upper = static_cast<HalfBits>(bits >> 16);
    if (dtype == DType::kF32) std::memcpy(out + 4 * i, &value, 4);
    if (dtype == DType::kF16) StoreHalf(out + 2 * i, value);
    if (dtype == DType::kBF16) std::memcpy(out + 2 * i, &upper, 2);
  }
}

// `count` values (whole blocks): every bit random but the halves, which are of either sign and at
// most 2^-6 in size.
inline void FillWeights(DType dtype, std::byte* out, std::int64_t count, std::mt19937& rng) {
  const DTypeInfo& info = Info(dtype);
  if (info.block_values == 1) return FillFloats(dtype, out, count, rng);
  std::uniform_real_distribution<float> uniform(-0x1p-6F, 0x1p-6F);
  for (std::int64_t b = 0; b < count / info.block_values; ++b) {
    std::byte* block = out + b * info.block_bytes;
    for (int i = 0; i < info.block_bytes; ++i) block[i] = static_cast<std::byte>(rng());
    for (const std::size_t offset : HalfOffsets(dtype)) StoreHalf(block + offset, uniform(rng));
  }
}

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_KERNELS_RANDOM_WEIGHTS_H_
