#include "kernels/cpu/exp.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "tests/kernels/float_test_support.h"

namespace millrace::cpu {
namespace {

using testing::CanRun;
using testing::kInfinity;
using testing::kNan;

float ExpOf(const ExpVariant& variant, float x) {
  float y = 0.0F;
  variant.fn(&x, 1, &y);
  return y;
}

// Every kStride-th float in both directions, beyond the range of finite results. The stride is
// prime, so all low bits occur.
std::vector<float> DenseArguments() {
  constexpr std::uint32_t kStride = 2003;
  std::vector<float> out;
  for (std::uint32_t bits = 0; bits < std::bit_cast<std::uint32_t>(110.0F); bits += kStride) {
    out.push_back(std::bit_cast<float>(bits));
    out.push_back(-std::bit_cast<float>(bits));
  }
  return out;
}

TEST(Exp, IsWithinOneUlpOfTheTruth) {
  const std::vector<float> x = DenseArguments();
  std::vector<float> y(x.size());
  SelectExp(DetectIsa()).fn(x.data(), static_cast<std::int64_t>(x.size()), y.data());
  double worst = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double truth = std::exp(static_cast<double>(x[i]));
    if (truth < std::numeric_limits<float>::min() || truth > std::numeric_limits<float>::max()) {
      continue;
    }
    const double ulp = std::ldexp(1.0, std::ilogb(truth) - 23);
    worst = std::max(worst, std::fabs(y[i] - truth) / ulp);
  }
  RecordProperty("worst_ulp", std::to_string(worst));
  EXPECT_LT(worst, 1.0);
  EXPECT_GT(worst, 0.4);  // not the truth rounded: the measure works
}

TEST(Exp, GivesTheSameBitsOnEveryLevel) {
  std::vector<float> x = DenseArguments();
  x.insert(x.end(), {kNan, kInfinity, -kInfinity, 1e30F, -1e30F, 88.72283F, 88.7229F, -87.3365F});
  x.resize(x.size() / 16 * 16 + 5, 0.5F);  // with a tail
  std::vector<float> expected(x.size());
  SelectExp(Isa::kScalar).fn(x.data(), static_cast<std::int64_t>(x.size()), expected.data());
  for (const ExpVariant& variant : ExpVariants()) {
    if (!CanRun(variant.isa)) continue;
    SCOPED_TRACE(variant.name);
    std::vector<float> y(x.size());
    variant.fn(x.data(), static_cast<std::int64_t>(x.size()), y.data());
    testing::ExpectSameBits(y, expected);
  }
}

TEST(Exp, KnowsItsEdges) {
  for (const ExpVariant& variant : ExpVariants()) {
    if (!CanRun(variant.isa)) continue;
    SCOPED_TRACE(variant.name);
    EXPECT_EQ(ExpOf(variant, 0.0F), 1.0F);
    EXPECT_EQ(ExpOf(variant, -0.0F), 1.0F);
    EXPECT_EQ(ExpOf(variant, kInfinity), kInfinity);
    EXPECT_EQ(ExpOf(variant, 89.0F), kInfinity);
    EXPECT_EQ(ExpOf(variant, 3e38F), kInfinity);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(ExpOf(variant, -kInfinity)), 0U);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(ExpOf(variant, -88.0F)), 0U);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(ExpOf(variant, -3e38F)), 0U);
    EXPECT_GE(ExpOf(variant, -87.33F), std::numeric_limits<float>::min());
    EXPECT_LE(ExpOf(variant, 88.722F), std::numeric_limits<float>::max());
    EXPECT_TRUE(std::isnan(ExpOf(variant, kNan)));
  }
}

}  // namespace
}  // namespace millrace::cpu
