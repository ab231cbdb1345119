#include "runtime/backend/cpu/moe_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace millrace::cpu {
namespace {

TEST(MoePlan, GroupsEveryRowUnderItsExpertInTokenOrder) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 rng(seed);
  MoePlan plan;
  plan.Reserve(64 * 8, 128);
  for (int round = 0; round < 200; ++round) {
    const std::int32_t tokens = 1 + static_cast<std::int32_t>(rng() % 64);
    const std::int32_t experts = 1 + static_cast<std::int32_t>(rng() % 128);
    const std::int32_t used =
        1 + static_cast<std::int32_t>(rng() % static_cast<std::uint32_t>(std::min(8, experts)));
    std::vector<std::int32_t> chosen;
    for (std::int32_t t = 0; t < tokens; ++t) {
      std::vector<std::int32_t> all(static_cast<std::size_t>(experts));
      for (std::int32_t e = 0; e < experts; ++e) all[static_cast<std::size_t>(e)] = e;
      std::shuffle(all.begin(), all.end(), rng);
      chosen.insert(chosen.end(), all.begin(), all.begin() + used);
    }
    plan.Build(chosen, used, experts);
    std::vector<int> seen(chosen.size(), 0);
    std::int32_t next = 0;
    std::int32_t before = tokens + 1;
    for (const MoePlan::Group& group : plan.groups) {
      ASSERT_GT(group.count, 0);
      ASSERT_LE(group.count, before);  // most rows first
      before = group.count;
      next += group.count;
      std::int32_t last_token = -1;
      for (std::int32_t row = group.begin; row < group.begin + group.count; ++row) {
        const auto r = static_cast<std::size_t>(row);
        const auto slot = static_cast<std::size_t>(plan.slots[r]);
        ASSERT_EQ(chosen[slot], group.expert);
        ASSERT_EQ(plan.tokens[r], plan.slots[r] / used);
        ASSERT_GT(plan.tokens[r], last_token);
        last_token = plan.tokens[r];
        ++seen[slot];
      }
    }
    ASSERT_EQ(next, tokens * used);
    ASSERT_TRUE(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
  }
}

}  // namespace
}  // namespace millrace::cpu
