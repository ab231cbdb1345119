// Portable matrix products: the definition of kernels/cpu/matmul.h, written out. The other levels
// give the same bits. A block of weights is unpacked once for all columns.
#include <cmath>
#include <cstring>

#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/matmul_rows.h"
#include "kernels/dequantize.h"
#include "kernels/unpack_blocks.h"

namespace millrace::cpu::scalar {
namespace {

// A block of weights as integers, and its product with a block of activations. Bounds of the sums,
// |q_x| <= 127: Q8_0 32*128*127 = 5.2e5; Q5_1 32*31*127 = 1.3e5; Q2_K 256*15*3*127 = 1.5e6; Q3_K
// 256*32*4*127 = 4.2e6; Q4_K 256*63*15*127 = 3.1e7, its minimums 256*63*127 = 2.1e6; Q5_K 6.4e7;
// Q6_K 256*128*32*127 = 1.4e8 (2.7e8 before the offset); IQ4_XS 256*32*127*127 = 1.4e8. All below
// 2^31.

template <typename Value>
std::int32_t Dot(const Value* q, const std::int8_t* x, int count) {
  std::int32_t isum = 0;
  for (int i = 0; i < count; ++i) isum += q[i] * x[i];
  return isum;
}

struct UnpackedQ8_0 {
  using Block = BlockQ8_0;
  using Activation = ActivationQ8x32;
  float d;
  const std::int8_t* q;

  explicit UnpackedQ8_0(const Block& block) : d(HalfToFloat(block.d)), q(block.q) {}
  float Accumulate(const Activation& x, float acc) const {
    return std::fma(d * x.scale, static_cast<float>(Dot(q, x.q, 32)), acc);
  }
};

struct UnpackedIQ4_NL {
  using Block = BlockIQ4_NL;
  using Activation = ActivationQ8x32;
  float d;
  std::int8_t q[32];

  explicit UnpackedIQ4_NL(const Block& block) : d(HalfToFloat(block.d)) { UnpackValues(block, q); }
  float Accumulate(const Activation& x, float acc) const {
    return std::fma(d * x.scale, static_cast<float>(Dot(q, x.q, 32)), acc);
  }
};

// Q4_0 and Q5_0.
template <typename BlockType, int kOffset>
struct UnpackedOffset {
  using Block = BlockType;
  using Activation = ActivationQ8x32;
  float d;
  std::uint8_t q[32];

  explicit UnpackedOffset(const Block& block) : d(HalfToFloat(block.d)) { UnpackValues(block, q); }
  float Accumulate(const Activation& x, float acc) const {
    return std::fma(d * x.scale, static_cast<float>(Dot(q, x.q, 32) - kOffset * x.sum), acc);
  }
};

// Q4_1 and Q5_1.
template <typename BlockType>
struct UnpackedMinimum {
  using Block = BlockType;
  using Activation = ActivationQ8x32;
  float d;
  float m;
  std::uint8_t q[32];

  explicit UnpackedMinimum(const Block& block) : d(HalfToFloat(block.d)), m(HalfToFloat(block.m)) {
    UnpackValues(block, q);
  }
  float Accumulate(const Activation& x, float acc) const {
    acc = std::fma(d * x.scale, static_cast<float>(Dot(q, x.q, 32)), acc);
    return std::fma(m * x.scale, static_cast<float>(x.sum), acc);
  }
};

struct UnpackedQ2_K {
  using Block = BlockQ2_K;
  using Activation = ActivationQ8x256;
  float d;
  float dmin;
  const std::uint8_t* scales;
  std::uint8_t q[256];

  explicit UnpackedQ2_K(const Block& block)
      : d(HalfToFloat(block.d)), dmin(HalfToFloat(block.dmin)), scales(block.scales) {
    UnpackValues(block, q);
  }
  float Accumulate(const Activation& x, float acc) const {
    std::int32_t isum = 0;
    std::int32_t msum = 0;
    for (int s = 0; s < 16; ++s) {
      isum += (scales[s] & 0x0F) * Dot(q + 16 * s, x.q + 16 * s, 16);
      msum += (scales[s] >> 4) * x.sums[s];
    }
    acc = std::fma(d * x.scale, static_cast<float>(isum), acc);
    return std::fma(-(dmin * x.scale), static_cast<float>(msum), acc);
  }
};

// Q4_K and Q5_K.
template <typename BlockType>
struct UnpackedWithMins {
  using Block = BlockType;
  using Activation = ActivationQ8x256;
  float d;
  float dmin;
  ScaleMin sub[8];
  std::uint8_t q[256];

  explicit UnpackedWithMins(const Block& block)
      : d(HalfToFloat(block.d)), dmin(HalfToFloat(block.dmin)) {
    for (int s = 0; s < 8; ++s) sub[s] = UnpackScaleMin(block.scales, s);
    UnpackValues(block, q);
  }
  float Accumulate(const Activation& x, float acc) const {
    std::int32_t isum = 0;
    std::int32_t msum = 0;
    for (int s = 0; s < 8; ++s) {
      isum += sub[s].scale * Dot(q + 32 * s, x.q + 32 * s, 32);
      msum += sub[s].min * (x.sums[2 * s] + x.sums[2 * s + 1]);
    }
    acc = std::fma(d * x.scale, static_cast<float>(isum), acc);
    return std::fma(-(dmin * x.scale), static_cast<float>(msum), acc);
  }
};

// Q3_K and Q6_K.
template <typename BlockType, int kOffset>
struct UnpackedSigned16 {
  using Block = BlockType;
  using Activation = ActivationQ8x256;
  float d;
  std::int8_t scales[16];
  std::uint8_t q[256];

  explicit UnpackedSigned16(const Block& block) : d(HalfToFloat(block.d)) {
    UnpackScales(block, scales);
    UnpackValues(block, q);
  }
  float Accumulate(const Activation& x, float acc) const {
    std::int32_t isum = 0;
    for (int s = 0; s < 16; ++s) {
      isum += scales[s] * (Dot(q + 16 * s, x.q + 16 * s, 16) - kOffset * x.sums[s]);
    }
    return std::fma(d * x.scale, static_cast<float>(isum), acc);
  }
};

struct UnpackedIQ4_XS {
  using Block = BlockIQ4_XS;
  using Activation = ActivationQ8x256;
  float d;
  std::int8_t scales[8];
  std::int8_t q[256];

  explicit UnpackedIQ4_XS(const Block& block) : d(HalfToFloat(block.d)) {
    UnpackScales(block, scales);
    UnpackValues(block, q);
  }
  float Accumulate(const Activation& x, float acc) const {
    std::int32_t isum = 0;
    for (int s = 0; s < 8; ++s) isum += scales[s] * Dot(q + 32 * s, x.q + 32 * s, 32);
    return std::fma(d * x.scale, static_cast<float>(isum), acc);
  }
};

// Columns whose accumulators are kept while a weight row is walked; bounds the stack.
constexpr std::int64_t kColumns = 64;

template <typename Unpacked>
void MatmulQuantised(const MatmulParams& p) {
  using Block = typename Unpacked::Block;
  using Activation = typename Unpacked::Activation;
  constexpr std::int64_t kValues = sizeof(Activation::q);
  for (std::int64_t j0 = 0; j0 < p.m; j0 += kColumns) {
    const std::int64_t columns = p.m - j0 < kColumns ? p.m - j0 : kColumns;
    for (std::int64_t i = p.n_begin; i < p.n_end; ++i) {
      const auto* blocks = reinterpret_cast<const Block*>(WeightRow(p, i));
      float acc[kColumns] = {};
      for (std::int64_t b = 0; b < p.k / kValues; ++b) {
        const Unpacked unpacked(blocks[b]);
        for (std::int64_t c = 0; c < columns; ++c) {
          const auto* x = reinterpret_cast<const Activation*>(ActivationRow(p, j0 + c));
          acc[c] = unpacked.Accumulate(x[b], acc[c]);
        }
      }
      for (std::int64_t c = 0; c < columns; ++c) OutputRow(p, j0 + c)[i] = acc[c];
    }
  }
}

constexpr int kLanes = 16;

float SumLanes(float* lanes) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

// The last lanes of a ragged row multiply zeros, as masked loads on the other levels do: a lane
// that holds -0 becomes +0 by it.
float DotFloat(const float* w, const float* x, std::int64_t k) {
  float lanes[kLanes] = {};
  for (std::int64_t i = 0; i < k; i += kLanes) {
    for (std::int64_t l = 0; l < kLanes; ++l) {
      const bool inside = i + l < k;
      lanes[l] = std::fma(inside ? w[i + l] : 0.0F, inside ? x[i + l] : 0.0F, lanes[l]);
    }
  }
  return SumLanes(lanes);
}

// Weights are widened this many at a time; a multiple of the lanes.
constexpr std::int64_t kWidened = 256;

template <DType kType>
float DotRow(const std::byte* w, const float* x, std::int64_t k) {
  if constexpr (kType == DType::kF32) return DotFloat(reinterpret_cast<const float*>(w), x, k);
  float lanes[kLanes] = {};
  float wide[kWidened];
  for (std::int64_t i = 0; i < k; i += kWidened) {
    const std::int64_t part = k - i < kWidened ? k - i : kWidened;
    DequantizeRow(kType, w + 2 * i, part, wide);
    for (std::int64_t t = 0; t < part; t += kLanes) {
      for (std::int64_t l = 0; l < kLanes; ++l) {
        const bool inside = t + l < part;
        lanes[l] = std::fma(inside ? wide[t + l] : 0.0F, inside ? x[i + t + l] : 0.0F, lanes[l]);
      }
    }
  }
  return SumLanes(lanes);
}

template <DType kType>
void MatmulFloat(const MatmulParams& p) {
  for (std::int64_t j = 0; j < p.m; ++j) {
    const auto* x = reinterpret_cast<const float*>(ActivationRow(p, j));
    float* y = OutputRow(p, j);
    for (std::int64_t i = p.n_begin; i < p.n_end; ++i)
      y[i] = DotRow<kType>(WeightRow(p, i), x, p.k);
  }
}

}  // namespace

const MatmulVariant kFloatMatmuls[kFloatTypes] = {
    {Isa::kScalar, DType::kF32, 1, MatmulFloat<DType::kF32>},
    {Isa::kScalar, DType::kF16, 1, MatmulFloat<DType::kF16>},
    {Isa::kScalar, DType::kBF16, 1, MatmulFloat<DType::kBF16>},
};

const MatmulVariant kQuantisedMatmuls[kQuantisedTypes] = {
    {Isa::kScalar, DType::kQ8_0, 1, MatmulQuantised<UnpackedQ8_0>},
    {Isa::kScalar, DType::kQ4_0, 1, MatmulQuantised<UnpackedOffset<BlockQ4_0, 8>>},
    {Isa::kScalar, DType::kQ4_1, 1, MatmulQuantised<UnpackedMinimum<BlockQ4_1>>},
    {Isa::kScalar, DType::kQ5_0, 1, MatmulQuantised<UnpackedOffset<BlockQ5_0, 16>>},
    {Isa::kScalar, DType::kQ5_1, 1, MatmulQuantised<UnpackedMinimum<BlockQ5_1>>},
    {Isa::kScalar, DType::kIQ4_NL, 1, MatmulQuantised<UnpackedIQ4_NL>},
    {Isa::kScalar, DType::kQ2_K, 1, MatmulQuantised<UnpackedQ2_K>},
    {Isa::kScalar, DType::kQ3_K, 1, MatmulQuantised<UnpackedSigned16<BlockQ3_K, 4>>},
    {Isa::kScalar, DType::kQ4_K, 1, MatmulQuantised<UnpackedWithMins<BlockQ4_K>>},
    {Isa::kScalar, DType::kQ5_K, 1, MatmulQuantised<UnpackedWithMins<BlockQ5_K>>},
    {Isa::kScalar, DType::kQ6_K, 1, MatmulQuantised<UnpackedSigned16<BlockQ6_K, 32>>},
    {Isa::kScalar, DType::kIQ4_XS, 1, MatmulQuantised<UnpackedIQ4_XS>},
};

}  // namespace millrace::cpu::scalar
