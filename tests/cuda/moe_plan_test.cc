// The plan of experts' rows made on the (emulated) GPU against the CPU backend's.
#include "kernels/cuda/moe_plan.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/backend/cpu/moe_plan.h"
#include "tests/cuda/device_array.h"

namespace millrace::cuda {
namespace {

using millrace::testing::DeviceArray;

struct Plan {
  std::vector<std::int32_t> offsets;
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> slots;
  std::vector<std::int32_t> statistics;
};

struct Sizes {
  std::int32_t tokens;
  std::int32_t experts_per_token = 8;
  std::int32_t experts = 128;
};

std::size_t Rows(const Sizes& sizes) {
  return static_cast<std::size_t>(sizes.tokens * sizes.experts_per_token);
}

// The plan of `chosen`. Memory holds what `sizes` need and no more, though the grid is for more
// tokens.
Plan PlanOnGpu(const Sizes& sizes, const std::vector<std::int32_t>& chosen,
               std::int32_t max_tokens) {
  const std::size_t rows = Rows(sizes);
  const auto experts = static_cast<std::size_t>(sizes.experts);
  DeviceArray<std::int32_t> device_chosen(chosen);
  DeviceArray<std::int32_t> num_tokens(std::vector<std::int32_t>{sizes.tokens});
  DeviceArray<std::int32_t> offsets(experts + 1);
  DeviceArray<std::int32_t> tokens(rows);
  DeviceArray<std::int32_t> slots(rows);
  DeviceArray<std::int32_t> statistics(experts);
  MoePlanParams params;
  params.experts = device_chosen.data();
  params.num_tokens = num_tokens.data();
  params.max_tokens = max_tokens;
  params.experts_per_token = sizes.experts_per_token;
  params.num_experts = sizes.experts;
  params.offsets = offsets.data();
  params.tokens = tokens.data();
  params.slots = slots.data();
  params.statistics = statistics.data();
  params.chained = true;
  EXPECT_EQ(LaunchMoePlan(params, nullptr), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return {offsets.Read(), tokens.Read(), slots.Read(), statistics.Read()};
}

void ExpectThePlanOfTheCpu(const Sizes& sizes, const std::vector<std::int32_t>& chosen) {
  SCOPED_TRACE(std::to_string(sizes.tokens) + " tokens, " +
               std::to_string(sizes.experts_per_token) + " of " + std::to_string(sizes.experts));
  const Plan plan = PlanOnGpu(sizes, chosen, sizes.tokens + 50);
  cpu::MoePlan expected;
  expected.Build(chosen, sizes.experts_per_token, sizes.experts);
  EXPECT_EQ(plan.tokens, expected.tokens);
  EXPECT_EQ(plan.slots, expected.slots);
  std::vector<std::int32_t> counts(static_cast<std::size_t>(sizes.experts));
  for (const cpu::MoePlan::Group& group : expected.groups) {
    const auto expert = static_cast<std::size_t>(group.expert);
    counts[expert] = group.count;
    EXPECT_EQ(plan.offsets[expert], group.begin);
  }
  EXPECT_EQ(plan.statistics, counts);
  EXPECT_EQ(plan.offsets.front(), 0);
  for (std::size_t e = 0; e < counts.size(); ++e) {
    EXPECT_EQ(plan.offsets[e + 1], plan.offsets[e] + counts[e]);
  }
}

// Distinct experts for each token.
std::vector<std::int32_t> RandomChoice(const Sizes& sizes, std::mt19937_64* random) {
  std::vector<std::int32_t> all(static_cast<std::size_t>(sizes.experts));
  for (std::size_t e = 0; e < all.size(); ++e) all[e] = static_cast<std::int32_t>(e);
  std::vector<std::int32_t> chosen;
  for (std::int32_t t = 0; t < sizes.tokens; ++t) {
    std::shuffle(all.begin(), all.end(), *random);
    chosen.insert(chosen.end(), all.begin(), all.begin() + sizes.experts_per_token);
  }
  return chosen;
}

TEST(CudaMoePlan, IsThatOfTheCpuForAnyNumberOfTokens) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (const std::int32_t tokens : {1, 2, 3, 4, 5, 8, 9, 16, 23, 32, 33, 127, 512}) {
    const Sizes sizes = {tokens};
    ExpectThePlanOfTheCpu(sizes, RandomChoice(sizes, &random));
  }
  for (const Sizes& sizes : {Sizes{7, 2, 3}, Sizes{40, 4, 60}, Sizes{20, 10, 512}, Sizes{9, 1, 1},
                             Sizes{6, 3, kMaxPlannedExperts}}) {
    ExpectThePlanOfTheCpu(sizes, RandomChoice(sizes, &random));
  }
}

TEST(CudaMoePlan, GroupsExpertsOfAnyNumberOfRows) {
  // Expert e has counts[e] rows, their order shuffled.
  const std::vector<std::int32_t> counts = {0, 1, 15, 16, 17, 33, 0, 32, 31, 0};
  std::vector<std::int32_t> chosen;
  for (std::size_t e = 0; e < counts.size(); ++e) {
    chosen.insert(chosen.end(), static_cast<std::size_t>(counts[e]), static_cast<std::int32_t>(e));
  }
  std::mt19937_64 random(5);
  std::shuffle(chosen.begin(), chosen.end(), random);
  ExpectThePlanOfTheCpu(
      {static_cast<std::int32_t>(chosen.size()), 1, static_cast<std::int32_t>(counts.size())},
      chosen);
}

TEST(CudaMoePlan, PutsAllRowsOnOneExpertInTheirOrder) {
  const Sizes sizes = {100, 1, 128};
  ExpectThePlanOfTheCpu(sizes, std::vector<std::int32_t>(100, 77));
}

TEST(CudaMoePlan, IsEmptyWithoutTokens) {
  const Plan plan = PlanOnGpu({0}, {}, 4);
  EXPECT_EQ(plan.offsets, std::vector<std::int32_t>(129));
  EXPECT_EQ(plan.statistics, std::vector<std::int32_t>(128));
}

TEST(CudaMoePlan, RefusesMoreExpertsThanItCanCount) {
  MoePlanParams params;
  params.max_tokens = 1;
  params.num_experts = kMaxPlannedExperts + 1;
  EXPECT_EQ(LaunchMoePlan(params, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace millrace::cuda
