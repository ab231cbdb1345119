#include "kernels/dequantize.h"

#include <bit>
#include <cstring>

#include "kernels/unpack_blocks.h"

namespace millrace {
namespace {

// Every function below turns one block into floats, in the order of operations of Python's `gguf`.

void Dequantize(const BlockQ8_0& block, float* out) {
  const float d = HalfToFloat(block.d);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(block.q[i]) * d;
}

template <int kOffset, typename Block>
void DequantizeOffset(const Block& block, float* out) {
  std::uint8_t q[32];
  UnpackValues(block, q);
  const float d = HalfToFloat(block.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i] - kOffset);
}

void Dequantize(const BlockQ4_0& block, float* out) { DequantizeOffset<8>(block, out); }
void Dequantize(const BlockQ5_0& block, float* out) { DequantizeOffset<16>(block, out); }

template <typename Block>
void DequantizeWithMinimum(const Block& block, float* out) {
  std::uint8_t q[32];
  UnpackValues(block, q);
  const float d = HalfToFloat(block.d);
  const float m = HalfToFloat(block.m);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i]) + m;
}

void Dequantize(const BlockQ4_1& block, float* out) { DequantizeWithMinimum(block, out); }
void Dequantize(const BlockQ5_1& block, float* out) { DequantizeWithMinimum(block, out); }

void Dequantize(const BlockIQ4_NL& block, float* out) {
  std::int8_t q[32];
  UnpackValues(block, q);
  const float d = HalfToFloat(block.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i]);
}

void Dequantize(const BlockQ2_K& block, float* out) {
  std::uint8_t q[256];
  UnpackValues(block, q);
  const float d = HalfToFloat(block.d);
  const float dmin = HalfToFloat(block.dmin);
  for (int s = 0; s < 16; ++s) {
    const float scale = d * static_cast<float>(block.scales[s] & 0x0F);
    const float min = dmin * static_cast<float>(block.scales[s] >> 4);
    for (int i = 16 * s; i < 16 * s + 16; ++i) out[i] = scale * static_cast<float>(q[i]) - min;
  }
}

template <typename Block>
void DequantizeWithMins(const Block& block, float* out) {
  std::uint8_t q[256];
  UnpackValues(block, q);
  const float d = HalfToFloat(block.d);
  const float dmin = HalfToFloat(block.dmin);
  for (int s = 0; s < 8; ++s) {
    const ScaleMin packed = UnpackScaleMin(block.scales, s);
    const float scale = d * static_cast<float>(packed.scale);
    const float min = dmin * static_cast<float>(packed.min);
    for (int i = 32 * s; i < 32 * s + 32; ++i) out[i] = scale * static_cast<float>(q[i]) - min;
  }
}

void Dequantize(const BlockQ4_K& block, float* out) { DequantizeWithMins(block, out); }
void Dequantize(const BlockQ5_K& block, float* out) { DequantizeWithMins(block, out); }

template <int kOffset, typename Block>
void DequantizeSigned16(const Block& block, float* out) {
  std::uint8_t q[256];
  std::int8_t scales[16];
  UnpackValues(block, q);
  UnpackScales(block, scales);
  const float d = HalfToFloat(block.d);
  for (int s = 0; s < 16; ++s) {
    const float scale = d * static_cast<float>(scales[s]);
    for (int i = 16 * s; i < 16 * s + 16; ++i) out[i] = scale * static_cast<float>(q[i] - kOffset);
  }
}

void Dequantize(const BlockQ3_K& block, float* out) { DequantizeSigned16<4>(block, out); }
void Dequantize(const BlockQ6_K& block, float* out) { DequantizeSigned16<32>(block, out); }

void Dequantize(const BlockIQ4_XS& block, float* out) {
  std::int8_t q[256];
  std::int8_t scales[8];
  UnpackValues(block, q);
  UnpackScales(block, scales);
  const float d = HalfToFloat(block.d);
  for (int s = 0; s < 8; ++s) {
    const float scale = d * static_cast<float>(scales[s]);
    for (int i = 32 * s; i < 32 * s + 32; ++i) out[i] = scale * static_cast<float>(q[i]);
  }
}

template <typename Block, int kValues>
void DequantizeBlocks(const std::byte* row, std::int64_t k, float* out) {
  const auto* blocks = reinterpret_cast<const Block*>(row);
  for (std::int64_t b = 0; b < k / kValues; ++b) Dequantize(blocks[b], out + b * kValues);
}

template <float (*kConvert)(HalfBits)>
void ConvertRow(const std::byte* row, std::int64_t k, float* out) {
  for (std::int64_t i = 0; i < k; ++i) {
    HalfBits bits;
    std::memcpy(&bits, row + 2 * i, sizeof(bits));
    out[i] = kConvert(bits);
  }
}

}  // namespace

float HalfToFloat(HalfBits half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1FU;
  const std::uint32_t mantissa = half & 0x3FFU;
  if (exponent == 0) {  // a subnormal is a multiple of 2^-24, exact in f32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  if (exponent == 31) {
    const std::uint32_t quiet = mantissa != 0 ? 0x00400000U : 0U;
    return std::bit_cast<float>(sign | 0x7F800000U | quiet | (mantissa << 13));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

HalfBits FloatToHalf(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<HalfBits>((bits >> 16) & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) {  // NaN: quiet, the top of the payload kept
    return static_cast<HalfBits>(sign | 0x7E00U | ((magnitude >> 13) & 0x3FFU));
  }
  // From 65 520, half way between the largest half and the next power of two, it rounds to
  // infinity.
  if (magnitude >= 0x477FF000U) return static_cast<HalfBits>(sign | 0x7C00U);
  if (magnitude < 0x38800000U) {  // below 2^-14: adding 0.5 rounds to a multiple of 2^-24 in f32
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<HalfBits>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000U));
  }
  const std::uint32_t odd = (magnitude >> 13) & 1U;
  return static_cast<HalfBits>(sign | ((magnitude - 0x38000000U + 0xFFFU + odd) >> 13));
}

float Bfloat16ToFloat(HalfBits bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

void DequantizeRow(DType dtype, const std::byte* row, std::int64_t k, float* out) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, row, static_cast<std::size_t>(k) * sizeof(float));
      return;
    case DType::kF16:
      return ConvertRow<HalfToFloat>(row, k, out);
    case DType::kBF16:
      return ConvertRow<Bfloat16ToFloat>(row, k, out);
    case DType::kQ8_0:
      return DequantizeBlocks<BlockQ8_0, 32>(row, k, out);
    case DType::kQ4_0:
      return DequantizeBlocks<BlockQ4_0, 32>(row, k, out);
    case DType::kQ4_1:
      return DequantizeBlocks<BlockQ4_1, 32>(row, k, out);
    case DType::kQ5_0:
      return DequantizeBlocks<BlockQ5_0, 32>(row, k, out);
    case DType::kQ5_1:
      return DequantizeBlocks<BlockQ5_1, 32>(row, k, out);
    case DType::kIQ4_NL:
      return DequantizeBlocks<BlockIQ4_NL, 32>(row, k, out);
    case DType::kQ2_K:
      return DequantizeBlocks<BlockQ2_K, 256>(row, k, out);
    case DType::kQ3_K:
      return DequantizeBlocks<BlockQ3_K, 256>(row, k, out);
    case DType::kQ4_K:
      return DequantizeBlocks<BlockQ4_K, 256>(row, k, out);
    case DType::kQ5_K:
      return DequantizeBlocks<BlockQ5_K, 256>(row, k, out);
    case DType::kQ6_K:
      return DequantizeBlocks<BlockQ6_K, 256>(row, k, out);
    case DType::kIQ4_XS:
      return DequantizeBlocks<BlockIQ4_XS, 256>(row, k, out);
  }
}

}  // namespace millrace
