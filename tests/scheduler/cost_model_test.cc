#include "scheduler/cost_model.h"

#include <gtest/gtest.h>

#include <chrono>

namespace millrace {
namespace {

using std::chrono::milliseconds;

TEST(CostModel, GivesEverythingWhileNothingIsKnownOrNobodyWaitsForTokens) {
  CostModel cost;
  EXPECT_EQ(cost.PrefillBudget(8, milliseconds(50), 512), 512);
  cost.Observe(100, 0, milliseconds(1000));
  EXPECT_EQ(cost.PrefillBudget(0, milliseconds(50), 512), 512);
}

TEST(CostModel, CutsChunksSoThatAStepKeepsItsTarget) {
  CostModel cost;
  cost.Observe(0, 4, milliseconds(20));
  cost.Observe(100, 4, milliseconds(120));  // 1 ms a prompt token beside the decodes' 20 ms
  EXPECT_NEAR(cost.PrefillBudget(4, milliseconds(80), 512), 60, 1);
}

TEST(CostModel, LearnsAChangeOfSpeed) {
  CostModel cost;
  cost.Observe(100, 0, milliseconds(100));
  for (int i = 0; i < 30; ++i) cost.Observe(100, 0, milliseconds(200));
  EXPECT_NEAR(cost.PrefillBudget(1, milliseconds(200), 512), 100, 2);
}

TEST(CostModel, LetsAStepTakeTwiceItsTimeWhereTheTargetIsShorter) {
  CostModel cost;
  cost.Observe(0, 4, milliseconds(50));
  cost.Observe(100, 0, milliseconds(100));
  EXPECT_EQ(cost.PrefillBudget(4, milliseconds(10), 512), 50);
}

TEST(CostModel, StaysBelowTheTargetByWhatStepsDeviate) {
  CostModel cost;
  cost.Observe(0, 4, milliseconds(20));
  cost.Observe(100, 0, milliseconds(100));
  for (int i = 0; i < 50; ++i) cost.Observe(100, 4, milliseconds(i % 2 == 0 ? 130 : 110));
  // 1 ms a token, 10 ms of deviation.
  EXPECT_NEAR(cost.PrefillBudget(4, milliseconds(120), 512), 70, 5);
}

TEST(CostModel, NeverStarvesAPrompt) {
  CostModel cost;
  cost.Observe(0, 4, milliseconds(1));
  cost.Observe(100, 0, milliseconds(900));
  EXPECT_EQ(cost.PrefillBudget(4, milliseconds(5), 512), 1);
}

// An estimate that is far too high makes small chunks, and small chunks must correct it.
TEST(CostModel, FindsBackFromAnEstimateThatIsFarOff) {
  CostModel cost;
  cost.Observe(0, 8, milliseconds(50));
  cost.Observe(100, 0, milliseconds(20'000));  // a stolen minute: 200 ms a token
  int steps = 0;
  std::int32_t budget = 0;
  for (; budget < 100 && steps < 200; ++steps) {
    budget = cost.PrefillBudget(8, milliseconds(250), 512);
    cost.Observe(budget, 8, milliseconds(50 + budget));  // really 1 ms a token
  }
  EXPECT_LT(steps, 100);
}

TEST(CostModel, LearnsWhatStreamsCostWhilePromptsNeverCease) {
  CostModel cost;
  cost.Observe(0, 1, milliseconds(10));
  cost.Observe(100, 0, milliseconds(100));
  // Thirty more streams came: a step without prompts would take 100 ms now.
  for (int i = 0; i < 100; ++i) {
    const std::int32_t chunk = cost.PrefillBudget(31, milliseconds(250), 512);
    cost.Observe(chunk, 31, milliseconds(100 + chunk));
  }
  const std::int32_t chunk = cost.PrefillBudget(31, milliseconds(250), 512);
  EXPECT_LE(100 + chunk, 250);
  EXPECT_GE(chunk, 75) << "half of what there is room for";
}

TEST(CostModel, TakesTheLowerOfTheFirstTwoForThePrice) {
  CostModel cost;
  cost.Observe(100, 0, milliseconds(30'000));  // the first after a start
  cost.Observe(100, 0, milliseconds(100));
  EXPECT_LE(cost.Predict(1000, 0), milliseconds(1001));
}

TEST(CostModel, LearnsFromSmallChunksBeforeAnyStepWithoutPrompts) {
  CostModel cost;
  cost.Observe(512, 0, milliseconds(20'000));
  std::int32_t budget = 0;
  int steps = 0;
  for (; budget < 100 && steps < 200; ++steps) {
    budget = cost.PrefillBudget(4, milliseconds(250), 512);
    cost.Observe(budget, 4, milliseconds(20 + budget));
  }
  EXPECT_LT(steps, 100);
}

TEST(CostModel, ASeedThatIsTooLowGrows) {
  CostModel cost;
  cost.Observe(0, 4, milliseconds(300));  // a slow first step
  cost.Observe(100, 4, milliseconds(120));
  for (int i = 0; i < 60; ++i) {
    const std::int32_t chunk = cost.PrefillBudget(4, milliseconds(100), 512);
    cost.Observe(chunk, 4, milliseconds(20 + chunk));
  }
  EXPECT_LE(20 + cost.PrefillBudget(4, milliseconds(100), 512), 100);
}

TEST(CostModel, TakesNoSingleStepForMoreThanTwiceWhatWasExpected) {
  CostModel cost;
  for (int i = 0; i < 3; ++i) cost.Observe(100, 0, milliseconds(100));
  cost.Observe(100, 0, milliseconds(30'000));
  EXPECT_LE(cost.Predict(1000, 0), milliseconds(1200));
}

TEST(CostModel, TellsHowPromptsGetOnBesideStreams) {
  CostModel cost;
  cost.Observe(3, 0, std::chrono::seconds(3));  // cold, and far too small to tell
  cost.Observe(100, 0, milliseconds(900));
  EXPECT_EQ(cost.Predict(1000, 1000), Duration::zero()) << "nobody is judged by so little";
  EXPECT_EQ(cost.PrefillPace(4, milliseconds(120), 512), 0);
  for (int i = 0; i < 50; ++i) cost.Observe(100, 0, milliseconds(100));
  for (int i = 0; i < 50; ++i) cost.Observe(0, 4, milliseconds(20));
  EXPECT_NEAR(ToSeconds(cost.Predict(50, 2)), 0.050 + 0.040, 1e-4);
  EXPECT_NEAR(cost.PrefillPace(0, milliseconds(120), 512), 0.001, 1e-5);
  // 100 tokens in a step of 120 ms.
  EXPECT_NEAR(cost.PrefillPace(4, milliseconds(120), 512), 0.0012, 1e-5);
}

TEST(CostModel, MeasuresTurns) {
  CostModel cost;
  EXPECT_EQ(cost.seconds_per_turn(), 0);
  cost.ObserveTurns(2, milliseconds(100));
  EXPECT_DOUBLE_EQ(cost.seconds_per_turn(), 0.05);
  for (int i = 0; i < 50; ++i) cost.ObserveTurns(1, milliseconds(200));
  EXPECT_NEAR(cost.seconds_per_turn(), 0.2, 1e-3);
}

class AfterASilence : public ::testing::Test {
 protected:
  // 1 ms a prompt token and 20 ms a step, then a bad minute.
  AfterASilence() {
    for (int i = 0; i < 3; ++i) Observe(20, 100);
    for (int i = 0; i < 30; ++i) Observe(2000, 50'000);
    EXPECT_GT(cost_.Predict(100, 10), milliseconds(30'000));
  }
  void Observe(int decode_ms, int prefill_ms) {
    cost_.Observe(0, 4, milliseconds(decode_ms));
    cost_.Observe(100, 0, milliseconds(prefill_ms));
  }
  double Predicted() const { return ToSeconds(cost_.Predict(100, 10)); }

  CostModel cost_;
};

TEST_F(AfterASilence, JudgesByTheLowestPrices) {
  cost_.Age(std::chrono::seconds(5));
  EXPECT_NEAR(Predicted(), 0.1 + 0.2, 0.001);
}

TEST_F(AfterASilence, TheLowerOfTwoNewSamplesCounts) {
  cost_.Age(std::chrono::seconds(5));
  Observe(2000, 50'000);  // as slow as before: the first step may be so for reasons of its own
  EXPECT_NEAR(Predicted(), 0.1 + 0.2, 0.001);
  Observe(30, 200);
  EXPECT_NEAR(Predicted(), 0.2 + 0.3, 0.001);
}

TEST_F(AfterASilence, PricesFade) {
  cost_.Age(std::chrono::seconds(50));
  EXPECT_NEAR(Predicted(), 0.01 + 0.02, 0.001);
}

TEST_F(AfterASilence, IsLearnedBesideStreamsToo) {
  cost_.Age(std::chrono::seconds(5));
  for (int i = 0; i < 2; ++i) cost_.Observe(100, 0, milliseconds(100));
  cost_.Observe(100, 1, milliseconds(120));  // an old step of 2 s cannot be true
  EXPECT_LE(cost_.decode_seconds(), 0.12);
  EXPECT_NEAR(ToSeconds(cost_.Predict(100, 0)), 0.1, 0.02);
}

}  // namespace
}  // namespace millrace
