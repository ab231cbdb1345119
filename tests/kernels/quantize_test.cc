#include "kernels/cpu/quantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/quant_blocks.h"
#include "tests/kernels/guarded_buffer.h"

namespace millrace::cpu {
namespace {

using ::millrace::testing::GuardedBuffer;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A block of either format: its values and what the sums say.
struct Block {
  float scale;
  std::vector<int> q;
  std::vector<int> sums;    // as stored
  std::vector<int> totals;  // of q, as they should be
};

template <typename Stored>
Block Read(const Stored& stored) {
  Block block{.scale = stored.scale, .q = {}, .sums = {}, .totals = {}};
  block.q.assign(std::begin(stored.q), std::end(stored.q));
  if constexpr (sizeof(Stored::q) == 32) {
    block.sums = {stored.sum};
  } else {
    block.sums.assign(std::begin(stored.sums), std::end(stored.sums));
    for (std::size_t p = 0; p < 8; ++p) {
      EXPECT_EQ(stored.pair_sums[p], stored.sums[2 * p] + stored.sums[2 * p + 1]) << "pair " << p;
    }
  }
  const std::size_t width = block.q.size() / block.sums.size();
  for (std::size_t at = 0; at < block.q.size(); at += width) {
    int total = 0;
    for (std::size_t i = at; i < at + width; ++i) total += block.q[i];
    block.totals.push_back(total);
  }
  return block;
}

class QuantizeTest : public ::testing::TestWithParam<QuantizeVariant> {
 protected:
  void SetUp() override {
    if (!Supports(GetParam().isa)) GTEST_SKIP() << GetParam().name << ": not on this machine";
  }

  std::int64_t BlockValues() const {
    return GetParam().format == ActivationFormat::kQ8x32 ? 32 : 256;
  }

  // Quantises whole blocks from and to memory that ends at protected pages.
  std::vector<Block> Quantize(const std::vector<float>& x) const {
    const auto k = static_cast<std::int64_t>(x.size());
    GuardedBuffer in(x.size() * sizeof(float));
    std::memcpy(in.data(), x.data(), x.size() * sizeof(float));
    GuardedBuffer out(Bytes(k));
    std::memset(out.data(), 0x5A, Bytes(k));
    GetParam().fn(in.As<float>().data(), k, out.data());
    ExpectScalarBits(x, out);
    std::vector<Block> blocks;
    for (std::int64_t b = 0; b < k / BlockValues(); ++b) {
      blocks.push_back(GetParam().format == ActivationFormat::kQ8x32
                           ? Read(reinterpret_cast<const ActivationQ8x32*>(out.data())[b])
                           : Read(reinterpret_cast<const ActivationQ8x256*>(out.data())[b]));
      EXPECT_EQ(blocks.back().sums, blocks.back().totals) << "block " << b;
    }
    return blocks;
  }

  // A block with `head` first and `fill` after it.
  std::vector<float> BlockOf(std::vector<float> head, float fill) const {
    head.resize(static_cast<std::size_t>(BlockValues()), fill);
    return head;
  }

 private:
  std::size_t Bytes(std::int64_t k) const {
    return static_cast<std::size_t>(ActivationRowBytes(GetParam().format, k));
  }

  void ExpectScalarBits(const std::vector<float>& x, const GuardedBuffer& out) const {
    std::vector<std::byte> expected(Bytes(static_cast<std::int64_t>(x.size())));
    SelectQuantize(GetParam().format, Isa::kScalar)
        .fn(x.data(), static_cast<std::int64_t>(x.size()), expected.data());
    EXPECT_EQ(std::memcmp(expected.data(), out.data(), expected.size()), 0);
  }
};

std::vector<QuantizeVariant> IntegerVariants() {
  std::vector<QuantizeVariant> variants;
  for (const QuantizeVariant& variant : QuantizeVariants()) {
    if (variant.format != ActivationFormat::kF32) variants.push_back(variant);
  }
  return variants;
}

INSTANTIATE_TEST_SUITE_P(Variants, QuantizeTest, ::testing::ValuesIn(IntegerVariants()),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::replace(name.begin(), name.end(), '/', '_');
                           return name;
                         });

TEST_P(QuantizeTest, FollowsTheDefinitionOnRandomRows) {
  std::mt19937 rng(5);
  SCOPED_TRACE("seed 5");
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> exponent(-30, 30);
  std::vector<float> x(static_cast<std::size_t>(64 * BlockValues()));
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = std::ldexp(normal(rng), i % 97 == 0 ? exponent(rng) : 0);
  }
  const std::vector<Block> blocks = Quantize(x);
  int distinct = 0;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const float* values = x.data() + b * blocks[b].q.size();
    float max = 0.0F;
    for (std::size_t i = 0; i < blocks[b].q.size(); ++i) max = std::max(max, std::abs(values[i]));
    ASSERT_EQ(blocks[b].scale, max / 127.0F);
    const float inverse = 127.0F / max;
    for (std::size_t i = 0; i < blocks[b].q.size(); ++i) {
      ASSERT_EQ(static_cast<float>(blocks[b].q[i]), std::nearbyint(values[i] * inverse));
      distinct += blocks[b].q[i] != 0;
    }
  }
  EXPECT_GT(distinct, 1000);
}

TEST_P(QuantizeTest, RoundsTiesToEven) {
  // The maximum 127 makes the factor 1, so these are ties exactly.
  const auto blocks =
      Quantize(BlockOf({127.0F, 0.5F, 1.5F, 2.5F, -0.5F, -1.5F, -2.5F, 126.5F, -126.5F}, 0.0F));
  const std::vector<int> head(blocks[0].q.begin(), blocks[0].q.begin() + 9);
  EXPECT_EQ(head, (std::vector<int>{127, 0, 2, 2, 0, -2, -2, 126, -126}));
  EXPECT_EQ(blocks[0].scale, 1.0F);
}

TEST_P(QuantizeTest, NeverLeavesTheRangeOf127) {
  for (const float max : {1.0F, 3.0F, 0.1F, 1e-30F, 65504.0F, std::numeric_limits<float>::max(),
                          std::nextafter(1.0F, 0.0F)}) {
    const auto blocks = Quantize(BlockOf({}, max));
    const auto negative = Quantize(BlockOf({}, -max));
    for (const int q : blocks[0].q) ASSERT_EQ(q, 127) << max;
    for (const int q : negative[0].q) ASSERT_EQ(q, -127) << max;
    EXPECT_EQ(blocks[0].scale, max / 127.0F);
  }
}

TEST_P(QuantizeTest, ABlockOfZerosHasScaleZero) {
  for (const float zero : {0.0F, -0.0F}) {
    const auto blocks = Quantize(BlockOf({}, zero));
    EXPECT_EQ(std::bit_cast<std::uint32_t>(blocks[0].scale), 0U);
    for (const int q : blocks[0].q) EXPECT_EQ(q, 0);
  }
}

TEST_P(QuantizeTest, ABlockTooSmallToInvertCountsAsZeros) {
  for (const float tiny : {std::numeric_limits<float>::denorm_min(), 1e-40F, 3e-37F}) {
    const auto blocks = Quantize(BlockOf({tiny, 0.0F}, -tiny));
    EXPECT_EQ(blocks[0].scale, 0.0F) << tiny;
    for (const int q : blocks[0].q) EXPECT_EQ(q, 0);
  }
  // And the smallest that does invert still is quantised.
  EXPECT_EQ(Quantize(BlockOf({}, 4e-37F))[0].q[0], 127);
}

TEST_P(QuantizeTest, AFaultMarksItsBlockAndNoOther) {
  for (const float fault : {kNan, -kNan, kInfinity, -kInfinity}) {
    std::vector<float> x(static_cast<std::size_t>(3 * BlockValues()), 0.25F);
    x[static_cast<std::size_t>(2 * BlockValues() - 1)] = fault;
    const auto blocks = Quantize(x);
    EXPECT_TRUE(std::isnan(blocks[1].scale)) << fault;
    for (const int q : blocks[1].q) EXPECT_EQ(q, 0);
    EXPECT_EQ(blocks[0].scale, 0.25F / 127.0F);
    EXPECT_EQ(blocks[2].scale, 0.25F / 127.0F);
  }
}

TEST(QuantizeVariants, HoldEveryFormatAndCopyFloats) {
  for (const DTypeInfo& info : kDTypes) {
    EXPECT_EQ(SelectQuantize(info.activation, Isa::kAvx512).format, info.activation);
    EXPECT_EQ(SelectQuantize(info.activation, Isa::kScalar).isa, Isa::kScalar);
  }
  const std::vector<float> x = {1.0F, -0.0F, kNan};
  std::vector<float> y(3);
  SelectQuantize(ActivationFormat::kF32, Isa::kAvx512)
      .fn(x.data(), 3, reinterpret_cast<std::byte*>(y.data()));
  EXPECT_EQ(std::memcmp(x.data(), y.data(), 12), 0);
  EXPECT_EQ(ActivationRowBytes(ActivationFormat::kF32, 3), 12);
  EXPECT_EQ(ActivationRowBytes(ActivationFormat::kQ8x32, 96), 120);
  EXPECT_EQ(ActivationRowBytes(ActivationFormat::kQ8x256, 512), 616);
}

}  // namespace
}  // namespace millrace::cpu
