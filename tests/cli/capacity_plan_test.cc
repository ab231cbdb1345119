#include "cli/capacity_plan.h"

#include <gtest/gtest.h>

namespace millrace::cli {
namespace {

CapacityFigures Figures() {
  CapacityFigures figures;
  figures.block_size = 32;
  figures.kv_blocks = 100;
  figures.context = 2048;
  figures.max_num_seqs = 64;
  figures.prompt_tokens = 100;
  figures.output_tokens = 11;
  figures.prefill_tokens_per_second = 1000;
  figures.decode = {{1, 0.01}, {2, 0.01}, {4, 0.02}, {8, 0.039}};
  return figures;
}

TEST(CapacityPlanTest, SequencesAreWholeBlocks) {
  EXPECT_EQ(SequencesThatFit(Figures(), 32), 100);
  EXPECT_EQ(SequencesThatFit(Figures(), 33), 50);
  EXPECT_EQ(SequencesThatFit(Figures(), 2048), 1);
}

TEST(CapacityPlanTest, ARequestIsItsPromptItsStepsAndItsService) {
  CapacityFigures figures = Figures();
  // 100 ms of prompt and ten steps of 10 ms.
  EXPECT_DOUBLE_EQ(PredictTokensPerSecond(figures, 1), 11 / 0.2);
  EXPECT_DOUBLE_EQ(PredictTokensPerSecond(figures, 2), 11 / 0.15);
  // Half way between the steps of two and of four.
  EXPECT_DOUBLE_EQ(PredictTokensPerSecond(figures, 3), 11 / (0.1 + 10 * 0.015 / 3));
  figures.service_seconds_per_token = 0.001;
  EXPECT_DOUBLE_EQ(PredictTokensPerSecond(figures, 1), 11 / 0.211);
}

TEST(CapacityPlanTest, ServingIsNeverFasterThanDecodingAlone) {
  CapacityFigures figures = Figures();
  // Prompts and answers in one step save half of the prompt's 100 ms.
  figures.service_seconds_per_token = -0.05 / 11;
  EXPECT_DOUBLE_EQ(PredictTokensPerSecond(figures, 1), 11 / 0.15);
  // Measured beside another process: more than the whole prompt, and more than the whole request.
  for (const double noise : {-0.1 / 11, -0.011, -1.0}) {
    figures.service_seconds_per_token = noise;
    for (const BatchRate& rate : figures.decode) {
      const double predicted = PredictTokensPerSecond(figures, rate.batch);
      EXPECT_GT(predicted, 0);
      EXPECT_LE(predicted, rate.tokens_per_second() * (1 + 1e-9)) << rate.batch << " " << noise;
    }
  }
}

TEST(CapacityPlanTest, PlacesAreAsManyAsTheRateGrowsBy) {
  const Suggestion places = Suggest(Figures()).front();
  EXPECT_EQ(places.value, 2);  // eight decode 2.6 % more
  EXPECT_EQ(places.reason, "rate");
}

TEST(CapacityPlanTest, TheReasonSaysWhatEndedTheGrowth) {
  CapacityFigures figures = Figures();
  figures.decode = {{1, 0.01}, {2, 0.01}};
  EXPECT_EQ(Suggest(figures).front().reason, "memory");
  figures.max_num_seqs = 2;
  EXPECT_EQ(Suggest(figures).front().reason, "limit");
}

TEST(CapacityPlanTest, TargetsOfTheScalerFollowFromThePlaces) {
  CapacityFigures figures = Figures();
  figures.prompt_tokens = 1;
  figures.output_tokens = 1001;
  const std::vector<Suggestion> all = Suggest(figures);
  EXPECT_EQ(all[1].value, 1);    // 0.2 requests a second
  EXPECT_EQ(all[2].value, 68);   // two answers grow by 1001 of 3200 positions: 31.3 %
  EXPECT_EQ(all[3].value, 100);  // one place gives half of the rate
}

}  // namespace
}  // namespace millrace::cli
