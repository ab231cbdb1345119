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

TEST(CostModel, TellsHowPromptsGetOnBesideStreams) {
  CostModel cost;
  EXPECT_EQ(cost.prefill_pace(), 0);
  EXPECT_EQ(cost.Predict(1000, 1000), Duration::zero()) << "nobody is judged by a guess";
  cost.Observe(0, 4, milliseconds(20));
  cost.Observe(100, 4, milliseconds(120));
  EXPECT_DOUBLE_EQ(cost.prefill_pace(), 0.0012);
  EXPECT_EQ(cost.Predict(50, 2), milliseconds(50 + 40));
}

TEST(CostModel, MeasuresTurns) {
  CostModel cost;
  EXPECT_EQ(cost.seconds_per_turn(), 0);
  cost.ObserveTurns(2, milliseconds(100));
  EXPECT_DOUBLE_EQ(cost.seconds_per_turn(), 0.05);
  for (int i = 0; i < 50; ++i) cost.ObserveTurns(1, milliseconds(200));
  EXPECT_NEAR(cost.seconds_per_turn(), 0.2, 1e-3);
}

}  // namespace
}  // namespace millrace
