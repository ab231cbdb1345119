#include "kernels/kv_quantize.h"

#include <bit>
#include <cmath>
#include <limits>

#include "kernels/dequantize.h"

namespace millrace {
namespace {

// The largest magnitude of 32 values; NaN if one is NaN or infinite.
float LargestMagnitude(const float* x) {
  std::uint32_t largest = 0;  // magnitudes as integers are in the order of the floats
  for (int i = 0; i < 32; ++i) {
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(x[i]) & 0x7FFFFFFFU;
    largest = magnitude > largest ? magnitude : largest;
  }
  constexpr std::uint32_t kInfinity = 0x7F800000U;
  if (largest >= kInfinity) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(largest);
}

}  // namespace

void QuantizeKvRow(const float* row, std::int32_t n, BlockQ8_0* out) {
  for (std::int32_t b = 0; b < n / 32; ++b) {
    const float* x = row + 32 * b;
    BlockQ8_0& block = out[b];
    block.d = FloatToHalf(LargestMagnitude(x) / 127.0F);
    const float d = HalfToFloat(block.d);
    const float inverse = d > 0.0F ? 1.0F / d : 0.0F;  // a NaN is not above 0 either
    for (int i = 0; i < 32; ++i) {
      const float scaled = inverse == 0.0F ? 0.0F : std::nearbyint(x[i] * inverse);
      block.q[i] = static_cast<std::int8_t>(scaled > 127.0F    ? 127.0F
                                            : scaled < -127.0F ? -127.0F
                                                               : scaled);
    }
  }
}

void QuantizeKvRow(const float* row, std::int32_t n, Fp8* out) {
  for (std::int32_t i = 0; i < n; ++i) out[i] = FloatToFp8(row[i]);
}

}  // namespace millrace
