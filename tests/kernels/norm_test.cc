#include "kernels/cpu/norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/reference/norm.h"
#include "tests/kernels/float_test_support.h"

namespace millrace::cpu {
namespace {

using testing::CanRun;
using testing::kUnit;

constexpr float kEps = 1e-6F;
constexpr std::int64_t kLengths[] = {1, 15, 16, 17, 40, 64, 80, 128, 2048, 2055};

std::vector<float> Norm(const RmsNormVariant& variant, const std::vector<float>& x,
                        const std::vector<float>& weight) {
  std::vector<float> y(x.size());
  variant.fn(x.data(), weight.data(), static_cast<std::int64_t>(x.size()), kEps, y.data());
  return y;
}

TEST(RmsNorm, GivesTheSameBitsOnEveryLevel) {
  std::mt19937_64 random(1);
  for (const std::int64_t n : kLengths) {
    SCOPED_TRACE(n);
    const std::vector<float> x = testing::RandomFloats(static_cast<std::size_t>(n), &random, 3);
    const std::vector<float> weight = testing::RandomFloats(x.size(), &random);
    const std::vector<float> expected = Norm(SelectRmsNorm(Isa::kScalar), x, weight);
    for (const RmsNormVariant& variant : RmsNormVariants()) {
      SCOPED_TRACE(variant.name);
      if (CanRun(variant.isa)) testing::ExpectSameBits(Norm(variant, x, weight), expected);
    }
  }
}

TEST(RmsNorm, StaysWithinItsRoundingOfTheTruth) {
  std::mt19937_64 random(2);
  for (const std::int64_t n : kLengths) {
    SCOPED_TRACE(n);
    const std::vector<float> x = testing::RandomFloats(static_cast<std::size_t>(n), &random, 3);
    const std::vector<float> weight = testing::RandomFloats(x.size(), &random);
    const std::vector<float> y = Norm(SelectRmsNorm(DetectIsa()), x, weight);
    const std::vector<double> truth = reference::RmsNorm(x, weight, kEps);
    // n / 16 + 1 fma and 4 additions in the sum of positive terms, a division and an addition,
    // halved by the root; then root, division and two products.
    const double bound = ((static_cast<double>(n) / 16 + 5 + 2) / 2 + 4) * 1.01 * kUnit;
    for (std::size_t i = 0; i < y.size(); ++i) {
      ASSERT_LE(std::fabs(y[i] - truth[i]), bound * std::fabs(truth[i])) << i;
    }
  }
}

TEST(RmsNorm, WorksInPlaceAndOfZeros) {
  std::mt19937_64 random(3);
  for (const RmsNormVariant& variant : RmsNormVariants()) {
    if (!CanRun(variant.isa)) continue;
    SCOPED_TRACE(variant.name);
    std::vector<float> x = testing::RandomFloats(77, &random);
    const std::vector<float> weight = testing::RandomFloats(77, &random);
    const std::vector<float> expected = Norm(variant, x, weight);
    variant.fn(x.data(), weight.data(), 77, kEps, x.data());
    testing::ExpectSameBits(x, expected);
    for (const float y : Norm(variant, std::vector<float>(77), weight)) EXPECT_EQ(y, 0.0F);
  }
}

}  // namespace
}  // namespace millrace::cpu
