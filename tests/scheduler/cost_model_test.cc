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

TEST(CostModel, NeverStarvesAPrompt) {
  CostModel cost;
  cost.Observe(0, 4, milliseconds(500));
  cost.Observe(100, 4, milliseconds(900));
  EXPECT_EQ(cost.PrefillBudget(4, milliseconds(50), 512), CostModel::kMinChunk);
  EXPECT_EQ(cost.PrefillBudget(4, milliseconds(50), 5), 5);
}

}  // namespace
}  // namespace millrace
