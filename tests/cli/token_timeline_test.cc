#include "cli/token_timeline.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

namespace millrace::cli {
namespace {

TEST(TokenTimeline, CountsByTick) {
  TokenTimeline timeline;
  timeline.Add(0, 1);
  timeline.Add(0.09, 2);
  timeline.Add(0.35, 4);
  EXPECT_EQ(timeline.ticks(), (std::vector<std::uint64_t>{3, 0, 0, 4}));
}

TEST(TokenTimeline, AMonthTakesNoMoreRoomThanMinutes) {
  constexpr int kMonthSeconds = 30 * 24 * 3600;
  TokenTimeline timeline;
  for (int second = 0; second < kMonthSeconds; ++second) {
    timeline.Add(second, 1);
    ASSERT_LE(timeline.ticks().size(), TokenTimeline::kMostTicks);
  }
  const auto& ticks = timeline.ticks();
  EXPECT_EQ(std::accumulate(ticks.begin(), ticks.end(), std::uint64_t{0}), kMonthSeconds);
  // Plots still have what they draw: half of the ticks at the least.
  EXPECT_GE(ticks.size(), TokenTimeline::kMostTicks / 2);
}

TEST(TokenTimeline, LongerTicksHoldWhatCameInThem) {
  const std::uint64_t seed = 20261128;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 rng(seed);
  std::uniform_real_distribution<double> when(0, 3e4);
  TokenTimeline timeline;
  std::vector<std::pair<double, std::uint64_t>> added;
  for (int i = 0; i < 10000; ++i) {
    added.emplace_back(when(rng), rng() % 9);
    timeline.Add(added.back().first, added.back().second);
  }
  std::vector<std::uint64_t> expected(timeline.ticks().size());
  for (const auto& [seconds, tokens] : added) {
    expected.at(static_cast<std::size_t>(seconds / timeline.tick_seconds())) += tokens;
  }
  EXPECT_EQ(timeline.ticks(), expected);
}

TEST(TokenTimeline, ATokenLongAfterTheOthersKeepsThemApartFromIt) {
  TokenTimeline timeline;
  timeline.Add(1, 5);
  timeline.Add(1e7, 7);
  EXPECT_EQ(timeline.ticks().front(), 5);
  EXPECT_EQ(timeline.ticks().back(), 7);
}

}  // namespace
}  // namespace millrace::cli
