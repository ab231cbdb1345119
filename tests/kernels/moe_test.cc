#include "kernels/cpu/moe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/reference/moe.h"
#include "tests/kernels/float_test_support.h"

namespace millrace::cpu {
namespace {

using testing::CanRun;
using ::testing::ElementsAre;
using testing::kInfinity;
using testing::kNan;
using testing::kUnit;

struct Routed {
  std::vector<std::int32_t> experts;
  std::vector<float> weights;
};

Routed Route(const MoeVariant& variant, const std::vector<float>& logits, std::int32_t k,
             bool normalise = true) {
  Routed out{std::vector<std::int32_t>(static_cast<std::size_t>(k), -1),
             std::vector<float>(static_cast<std::size_t>(k), kNan)};
  variant.fns.route(logits.data(), static_cast<std::int32_t>(logits.size()), k, normalise,
                    out.experts.data(), out.weights.data());
  return out;
}

class EveryMoe : public ::testing::TestWithParam<MoeVariant> {
 protected:
  void SetUp() override {
    if (!CanRun(GetParam().isa)) GTEST_SKIP() << "this machine lacks " << GetParam().name;
  }
};

INSTANTIATE_TEST_SUITE_P(Levels, EveryMoe, ::testing::ValuesIn(MoeVariants()),
                         [](const auto& info) { return std::string(info.param.name); });

// FALSIFY-MOE-ROUTER-001
TEST_P(EveryMoe, RoutesHugeLogitsWithoutNan) {
  std::vector<float> logits(128);
  logits[0] = 1000.0F;
  logits[1] = 999.0F;
  const Routed routed = Route(GetParam(), logits, 8);
  EXPECT_THAT(routed.experts, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  for (const float weight : routed.weights) EXPECT_FALSE(std::isnan(weight));
  EXPECT_NEAR(routed.weights[0], 1.0 / (1.0 + std::exp(-1.0)), 1e-6);
  EXPECT_NEAR(routed.weights[1], std::exp(-1.0) / (1.0 + std::exp(-1.0)), 1e-6);
  EXPECT_EQ(routed.weights[2], 0.0F);
}

// FALSIFY-MOE-ROUTER-002
TEST_P(EveryMoe, FindsTheEightThatStandOut) {
  std::vector<float> logits(128, -5.0F);
  const std::vector<std::int32_t> best = {127, 3, 64, 0, 15, 16, 99, 31};
  for (std::size_t r = 0; r < best.size(); ++r) {
    logits[static_cast<std::size_t>(best[r])] = 8.0F - static_cast<float>(r);
  }
  EXPECT_EQ(Route(GetParam(), logits, 8).experts, best);
}

// FALSIFY-MOE-ROUTER-003
TEST_P(EveryMoe, RenormalisesToOneAndKeepsTheOrder) {
  std::mt19937_64 random(3);
  for (int repeat = 0; repeat < 100; ++repeat) {
    SCOPED_TRACE(repeat);
    const std::vector<float> logits = testing::RandomFloats(128, &random, 2);
    const Routed plain = Route(GetParam(), logits, 8, false);
    const Routed normalised = Route(GetParam(), logits, 8, true);
    EXPECT_EQ(plain.experts, normalised.experts);
    EXPECT_NEAR(std::accumulate(normalised.weights.begin(), normalised.weights.end(), 0.0), 1.0,
                1e-6);
    const float sum = std::accumulate(plain.weights.begin(), plain.weights.end(), 0.0F);
    for (std::size_t r = 0; r < 8; ++r) {
      EXPECT_EQ(normalised.weights[r], plain.weights[r] / sum);
      if (r > 0) {
        EXPECT_LE(normalised.weights[r], normalised.weights[r - 1]);
      }
    }
  }
}

// FALSIFY-MOE-ROUTER-004
TEST_P(EveryMoe, RoutesEqualLogitsToTheLowestIndicesWithEqualWeights) {
  const Routed routed = Route(GetParam(), std::vector<float>(128), 8);
  EXPECT_THAT(routed.experts, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  for (const float weight : routed.weights) EXPECT_EQ(weight, 0.125F);
}

TEST_P(EveryMoe, BreaksTiesToTheLowerIndexBehindABetterOne) {
  std::vector<float> logits(20, 1.0F);
  logits[17] = 2.0F;
  logits[4] = 0.0F;
  EXPECT_THAT(Route(GetParam(), logits, 6).experts, ElementsAre(17, 0, 1, 2, 3, 5));
}

TEST_P(EveryMoe, GivesDistinctIndicesInRangeWhateverTheLogits) {
  for (const float fault : {kNan, kInfinity, -kInfinity}) {
    for (const std::size_t at : {std::size_t{0}, std::size_t{7}, std::size_t{127}}) {
      std::vector<float> logits(128, 0.5F);
      logits[at] = fault;
      Routed routed = Route(GetParam(), logits, 8);
      std::sort(routed.experts.begin(), routed.experts.end());
      EXPECT_EQ(std::unique(routed.experts.begin(), routed.experts.end()), routed.experts.end());
      EXPECT_GE(routed.experts.front(), 0);
      EXPECT_LT(routed.experts.back(), 128);
    }
    EXPECT_THAT(Route(GetParam(), std::vector<float>(9, fault), 4).experts,
                ElementsAre(0, 1, 2, 3));
  }
}

TEST_P(EveryMoe, NeverChoosesTheOneExpertOfNoProbability) {
  std::vector<float> logits(8, 0.5F);
  logits[2] = -kInfinity;
  EXPECT_THAT(Route(GetParam(), logits, 7).experts, ElementsAre(0, 1, 3, 4, 5, 6, 7));
}

TEST_P(EveryMoe, RoutesLikeTheReferenceAndTheScalarLevel) {
  std::mt19937_64 random(7);
  for (const std::size_t num_experts : {1, 4, 8, 15, 16, 17, 60, 64, 128, 160}) {
    SCOPED_TRACE(num_experts);
    const std::vector<float> logits = testing::RandomFloats(num_experts, &random, 2);
    const auto k = static_cast<std::int32_t>(std::min<std::size_t>(8, num_experts));
    const Routed routed = Route(GetParam(), logits, k, false);
    const Routed scalar = Route(SelectMoe(Isa::kScalar), logits, k, false);
    EXPECT_EQ(routed.experts, scalar.experts);
    testing::ExpectSameBits(routed.weights, scalar.weights);
    const std::vector<double> p = reference::RouterProbabilities(logits);
    EXPECT_EQ(routed.experts, reference::BestExperts(p, k));
    for (std::size_t r = 0; r < routed.experts.size(); ++r) {
      const double truth = p[static_cast<std::size_t>(routed.experts[r])];
      // |logit - max| is below 20, rounded once, and passes exp (1 ulp = 2 units); so do the terms
      // of the sum, of 160 / 16 + 4 additions; a division.
      EXPECT_NEAR(routed.weights[r], truth, (2 * (20 + 2) + 14 + 1) * kUnit * truth);
    }
  }
}

TEST_P(EveryMoe, AppliesSwiglu) {
  std::mt19937_64 random(8);
  for (const std::size_t n : {1, 15, 16, 17, 768}) {
    std::vector<float> gate = testing::RandomFloats(n, &random, 5);
    const std::vector<float> up = testing::RandomFloats(n, &random);
    gate[0] = -100.0F;  // exp(-x) overflows: the result is -0
    std::vector<float> out(n);
    std::vector<float> scalar(n);
    GetParam().fns.swiglu(gate.data(), up.data(), static_cast<std::int64_t>(n), out.data());
    SelectMoe(Isa::kScalar)
        .fns.swiglu(gate.data(), up.data(), static_cast<std::int64_t>(n), scalar.data());
    testing::ExpectSameBits(out, scalar);
    for (std::size_t i = 0; i < n; ++i) {
      const double truth = reference::Swiglu(gate[i], up[i]);
      // exp 2 units, then addition, division and product one each; what underflows is below 1e-30.
      EXPECT_NEAR(out[i], truth, 5.1 * kUnit * std::fabs(truth) + 1e-30) << i;
    }
    GetParam().fns.swiglu(gate.data(), up.data(), static_cast<std::int64_t>(n), gate.data());
    testing::ExpectSameBits(gate, out);
  }
}

TEST_P(EveryMoe, CombinesInRankOrder) {
  std::mt19937_64 random(9);
  for (const std::size_t n : {1, 16, 33, 2048}) {
    constexpr std::int32_t kExperts = 8;
    const std::size_t stride = n + 3;
    const std::vector<float> rows = testing::RandomFloats(kExperts * stride, &random);
    const std::vector<float> weights = testing::RandomFloats(kExperts, &random);
    const std::vector<float> x = testing::RandomFloats(n, &random);
    for (const std::int32_t k : {1, 2, kExperts}) {
      std::vector<float> expected(n);
      for (std::size_t i = 0; i < n; ++i) {
        float sum = weights[0] * rows[i];
        for (std::int32_t r = 1; r < k; ++r) {
          const auto rank = static_cast<std::size_t>(r);
          sum = std::fma(weights[rank], rows[rank * stride + i], sum);
        }
        expected[i] = x[i] + sum;
      }
      std::vector<float> y = x;
      GetParam().fns.combine(y.data(), rows.data(), static_cast<std::int64_t>(stride),
                             weights.data(), k, static_cast<std::int64_t>(n), y.data());
      testing::ExpectSameBits(y, expected);
    }
  }
}

TEST_P(EveryMoe, Adds) {
  std::mt19937_64 random(10);
  const std::vector<float> a = testing::RandomFloats(37, &random);
  std::vector<float> b = testing::RandomFloats(37, &random);
  std::vector<float> expected(37);
  for (std::size_t i = 0; i < 37; ++i) expected[i] = a[i] + b[i];
  GetParam().fns.add(a.data(), b.data(), 37, b.data());
  testing::ExpectSameBits(b, expected);
}

}  // namespace
}  // namespace millrace::cpu
