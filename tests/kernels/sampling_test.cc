// The choice of a token against its definition, done the slow way in double.
#include "kernels/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "kernels/philox.h"
#include "kernels/reference/sampling.h"
#include "tests/kernels/float_test_support.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;

SampledToken Sample(const std::vector<float>& logits, const SampleRow& row) {
  SampleScratch scratch;
  return SampleToken(logits, row, &scratch);
}

std::uint32_t Greedy(const std::vector<float>& logits, SampleRow row) {
  row.params.temperature = 0;
  return Sample(logits, row).token;
}

TEST(Philox, EqualsThePublishedVectors) {
  // Random123, kat_vectors, philox4x32 with 10 rounds.
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  constexpr std::uint32_t kOnes = 0xffffffff;
  EXPECT_THAT(Philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(
      Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(UniformDraw, SpreadsEvenlyOverTheUnitInterval) {
  constexpr int kBins = 64;
  constexpr int kDraws = 64000;
  std::vector<int> counts(kBins);
  for (std::uint32_t i = 0; i < kDraws; ++i) {
    const double u = UniformDraw(7, 0, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++counts[static_cast<std::size_t>(u * kBins)];
  }
  double chi = 0;
  for (const int count : counts) chi += std::pow(count - kDraws / kBins, 2) / (kDraws / kBins);
  // Chi-squared with 63 degrees of freedom: mean 63, standard deviation 11.2; six of those.
  EXPECT_LT(chi, 63 + 6 * 11.3);
  EXPECT_NE(UniformDraw(7, 0, 1), UniformDraw(7, 1, 0));
  EXPECT_NE(UniformDraw(7, 0, 1), UniformDraw(8, 0, 1));
  EXPECT_NE(UniformDraw(7, 0, 1), UniformDraw(7 + (std::uint64_t{1} << 32U), 0, 1));
}

TEST(SampleToken, IsGreedyWithTheLowestIdAmongEquals) {
  EXPECT_EQ(Greedy({1, 5, 5, 2}, {}), 1U);
  EXPECT_EQ(Greedy({-3}, {}), 0U);
}

// A random row with everything that a request may ask for.
struct RandomRow {
  std::vector<float> logits;
  std::vector<SeenToken> seen;
  std::vector<std::pair<std::uint32_t, float>> bias;
  std::vector<std::uint32_t> allowed;
  std::vector<std::uint32_t> banned;
  SampleRow row;

  explicit RandomRow(std::mt19937_64* rng) {
    const std::size_t vocab = 1 + (*rng)() % 700;
    logits = testing::RandomFloats(vocab, rng, 3);
    const auto pick = [&] { return static_cast<std::uint32_t>((*rng)() % vocab); };
    const auto chance = [&](int percent) { return static_cast<int>((*rng)() % 100) < percent; };
    std::uniform_real_distribution<float> unit(0.01F, 1.0F);
    row.params.temperature = 0.2F + 2 * unit(*rng);
    row.params.seed = (*rng)();
    if (chance(40)) row.params.top_k = 1 + pick();
    if (chance(40)) row.params.top_p = unit(*rng);
    if (chance(40)) row.params.min_p = unit(*rng) / 4;
    if (chance(40)) {
      row.params.repetition_penalty = 0.5F + unit(*rng);
      row.params.presence_penalty = unit(*rng) - 0.5F;
      row.params.frequency_penalty = unit(*rng) - 0.5F;
      for (std::uint32_t token = 0; token < vocab; token += 1 + (*rng)() % 9) {
        seen.push_back({token, static_cast<std::uint32_t>((*rng)() % 4)});
      }
    }
    if (chance(30)) bias = {{pick(), 4 * unit(*rng)}};
    if (chance(20)) {
      for (std::uint32_t token = 0; token < vocab; token += 1 + (*rng)() % 5) {
        allowed.push_back(token);
      }
    }
    if (chance(20) && vocab > 1) banned = {pick()};
    row.seen = seen;
    row.logit_bias = bias;
    row.allowed = allowed;
    row.banned = banned;
  }
};

TEST(SampleToken, DrawsWhatTheDefinitionDraws) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  int compared = 0;
  for (int round = 0; round < 2000; ++round) {
    RandomRow random(&rng);
    double margin = 0;
    if (random.allowed.size() == 1 && random.banned == random.allowed) continue;  // nothing is left
    const auto p = reference::SamplingDistribution(random.logits, random.row, &margin);
    if (margin < 1e-5) continue;  // float arithmetic may rightly keep one more or one less
    for (std::uint32_t position = 0; position < 20; ++position) {
      random.row.position = position;
      const double u = UniformDraw(random.row.params.seed, 0, position);
      double sum = 0;
      double nearest = 1;
      std::uint32_t expected = 0;
      bool found = false;
      for (std::uint32_t token = 0; token < p.size(); ++token) {
        if (p[token] == 0) continue;
        sum += p[token];
        nearest = std::min(nearest, std::fabs(sum - u));
        if (!found && sum > u) {
          expected = token;
          found = true;
        }
      }
      // Changed logits carry a few float roundings of at most 2^-24 each of values up to about 30,
      // and the temperature divides them by at least 0.2: weights differ by less than 1e-4.
      if (!found || nearest < 1e-4) continue;
      const SampledToken sampled = Sample(random.logits, random.row);
      ASSERT_TRUE(sampled.finite);
      ASSERT_EQ(sampled.token, expected) << "round " << round << " position " << position;
      ++compared;
    }
  }
  EXPECT_GT(compared, 20000);
}

// FALSIFY-QWEN3_MOE_SAMPLING_V1_001: temperature 0, or top_k 1, is deterministic.
// FALSIFY-QWEN3_MOE_SAMPLING_V1_004: temperature 5 with top_k 1 equals greedy.
TEST(SampleToken, IsDeterministicAtTemperatureZeroOrTopOne) {
  std::mt19937_64 rng(1);
  for (int round = 0; round < 100; ++round) {
    const std::vector<float> logits = testing::RandomFloats(1000, &rng);
    const std::uint32_t greedy = Greedy(logits, {});
    for (std::uint32_t seed = 0; seed < 3; ++seed) {
      SampleRow row;
      row.params.seed = seed;
      row.position = seed * 100;
      EXPECT_EQ(Greedy(logits, row), greedy);
      row.params.temperature = 5;
      row.params.top_k = 1;
      EXPECT_EQ(Sample(logits, row).token, greedy);
    }
  }
}

// FALSIFY-QWEN3_MOE_SAMPLING_V1_002: the same seed gives the same tokens at temperature 0.7.
// FALSIFY-QWEN3_MOE_SAMPLING_V1_003: seeds 42 and 43 differ.
TEST(SampleToken, DependsOnSeedIndexAndPositionAlone) {
  std::mt19937_64 rng(2);
  const std::vector<float> logits = testing::RandomFloats(1000, &rng);
  const auto draw = [&logits](std::uint64_t seed, std::uint32_t index) {
    std::vector<std::uint32_t> tokens;
    for (std::uint32_t position = 0; position < 32; ++position) {
      SampleRow row;
      row.params.temperature = 0.7F;
      row.params.seed = seed;
      row.index = index;
      row.position = position;
      tokens.push_back(Sample(logits, row).token);
    }
    return tokens;
  };
  EXPECT_EQ(draw(42, 0), draw(42, 0));
  EXPECT_NE(draw(42, 0), draw(43, 0));
  EXPECT_NE(draw(42, 0), draw(42, 1));
}

// FALSIFY-QWEN3_MOE_REPETITION_PENALTY_V1_001: a penalty of 1 changes nothing.
TEST(RepetitionPenalty, OfOneChangesNothing) {
  std::mt19937_64 rng(3);
  const std::vector<float> logits = testing::RandomFloats(500, &rng);
  std::vector<SeenToken> seen;
  for (std::uint32_t token = 0; token < 500; ++token) seen.push_back({token, 3});
  for (std::uint32_t position = 0; position < 200; ++position) {
    SampleRow plain;
    plain.position = position;
    SampleRow with = plain;
    with.seen = seen;
    with.params.repetition_penalty = 1;
    EXPECT_EQ(Sample(logits, with).token, Sample(logits, plain).token);
  }
}

// FALSIFY-QWEN3_MOE_REPETITION_PENALTY_V1_002: a token seen often is penalised once.
TEST(RepetitionPenalty, AppliesOnceHoweverOftenATokenWasSeen) {
  const std::vector<float> logits = {4.0F, 3.0F, -1.0F};
  for (const std::uint32_t count : {0U, 1U, 5U}) {
    const std::vector<SeenToken> seen = {{0, count}};
    SampleRow row;
    row.seen = seen;
    row.params.repetition_penalty = 1.3F;  // 4 / 1.3 is above 3; twice it would be below
    EXPECT_EQ(Greedy(logits, row), 0U) << count;
    row.params.repetition_penalty = 1.4F;
    EXPECT_EQ(Greedy(logits, row), 1U) << count;
  }
}

TEST(RepetitionPenalty, PushesNegativeLogitsDown) {
  const std::vector<SeenToken> seen = {{0, 0}};
  SampleRow row;
  row.seen = seen;
  row.params.repetition_penalty = 2;
  EXPECT_EQ(Greedy({-1.0F, -1.5F}, row), 1U);
}

// FALSIFY-QWEN3_MOE_REPETITION_PENALTY_V1_003: penalties come before temperature.
TEST(Penalties, ComeBeforeTemperature) {
  const std::vector<float> logits = {4.0F, 3.0F};
  const std::vector<SeenToken> seen = {{0, 1}};
  SampleRow row;
  row.seen = seen;
  row.params.repetition_penalty = 2;
  EXPECT_EQ(Greedy(logits, row), 1U);  // turns the greedy choice, where temperature plays no part
  // Dividing by two numbers in either order is the same, so the order shows with a difference:
  // before temperature, 4 - 1 against 3 is even; after it, 8 - 1 against 6 would not be.
  row.params.repetition_penalty = 1;
  row.params.presence_penalty = 1;
  row.params.temperature = 0.5F;
  const auto p = reference::SamplingDistribution(logits, row, nullptr);
  EXPECT_NEAR(p[0], 0.5, 1e-6);
  int first = 0;
  constexpr int kDraws = 20000;
  for (std::uint32_t position = 0; position < kDraws; ++position) {
    row.position = position;
    first += Sample(logits, row).token == 0 ? 1 : 0;
  }
  // Six standard deviations of a binomial.
  EXPECT_NEAR(first, kDraws * p[0], 6 * std::sqrt(kDraws * p[0] * p[1]));
}

TEST(SampleToken, CountsOutputOnlyForPresenceAndFrequency) {
  const std::vector<SeenToken> in_prompt = {{0, 0}};
  const std::vector<SeenToken> twice = {{0, 2}};
  SampleRow row;
  row.params.presence_penalty = 1.5F;
  row.seen = in_prompt;
  EXPECT_EQ(Greedy({4, 3}, row), 0U);
  row.seen = twice;
  EXPECT_EQ(Greedy({4, 3}, row), 1U);
  row.params.presence_penalty = 0;
  row.params.frequency_penalty = 0.6F;  // two times: 1.2
  EXPECT_EQ(Greedy({4, 3}, row), 1U);
}

TEST(SampleToken, AppliesMasksBeforeBias) {
  const std::vector<std::uint32_t> allowed = {2, 3};
  const std::vector<std::uint32_t> banned = {3};
  const std::vector<std::pair<std::uint32_t, float>> bias = {{0, 100.0F}, {3, 100.0F}};
  SampleRow row;
  row.allowed = allowed;
  row.banned = banned;
  row.logit_bias = bias;
  EXPECT_EQ(Greedy({9, 8, 1, 2}, row), 2U);
}

TEST(SampleToken, GivesLogprobsOfTheRawLogits) {
  std::mt19937_64 rng(5);
  const std::vector<float> logits = testing::RandomFloats(300, &rng);
  const auto truth = reference::LogProbabilities(logits);
  const std::vector<std::pair<std::uint32_t, float>> bias = {{17, 100.0F}};
  SampleRow row;
  row.logit_bias = bias;
  row.num_logprobs = 5;
  const SampledToken sampled = Sample(logits, row);
  EXPECT_EQ(sampled.token, 17U);
  // Doubles rounded once to float: half an ulp of values below 16.
  EXPECT_NEAR(sampled.logprob, truth[17], 1e-6);
  const auto better =
      std::count_if(logits.begin(), logits.end(), [&](float x) { return x > logits[17]; });
  EXPECT_EQ(sampled.rank, static_cast<std::uint32_t>(better) + 1);
  ASSERT_EQ(sampled.top.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_NEAR(sampled.top[i].logprob, truth[sampled.top[i].token], 1e-6);
    if (i > 0) {
      EXPECT_LE(sampled.top[i].logprob, sampled.top[i - 1].logprob);
    }
  }
}

TEST(SampleToken, SaysWhenThereIsNothingToDraw) {
  const std::vector<std::uint32_t> banned = {0, 1};
  SampleRow row;
  row.banned = banned;
  EXPECT_FALSE(Sample({1, 2}, row).finite);
  EXPECT_FALSE(Sample({1, testing::kNan}, {}).finite);
  EXPECT_FALSE(Sample({1, testing::kInfinity}, {}).finite);
}

}  // namespace
}  // namespace millrace
