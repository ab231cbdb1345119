// The router's choice on the (emulated) GPU against the CPU's scalar level, bit for bit.
#include "kernels/cuda/route.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/moe.h"
#include "tests/cuda/device_array.h"
#include "tests/kernels/float_test_support.h"

namespace millrace::cuda {
namespace {

using millrace::testing::DeviceArray;
using testing::kInfinity;
using testing::kNan;

struct Routed {
  std::vector<std::int32_t> experts;
  std::vector<float> weights;
};

struct Case {
  std::int32_t tokens;
  std::int32_t experts;
  std::int32_t k;
  bool normalise = true;
};

Routed RouteOnCpu(const Case& c, const std::vector<float>& logits) {
  const auto pairs = static_cast<std::size_t>(c.tokens * c.k);
  Routed out{std::vector<std::int32_t>(pairs), std::vector<float>(pairs)};
  for (std::int32_t t = 0; t < c.tokens; ++t) {
    cpu::SelectMoe(cpu::Isa::kScalar)
        .fns.route(logits.data() + t * c.experts, c.experts, c.k, c.normalise,
                   out.experts.data() + t * c.k, out.weights.data() + t * c.k);
  }
  return out;
}

// Memory is for `tokens` of them and no more, so what a token too many would touch is protected.
Routed RouteOnGpu(const Case& c, const std::vector<float>& logits, std::int32_t max_tokens) {
  DeviceArray<float> device_logits(logits);
  DeviceArray<std::int32_t> num_tokens(std::vector<std::int32_t>{c.tokens});
  DeviceArray<std::int32_t> experts(static_cast<std::size_t>(c.tokens * c.k));
  DeviceArray<float> weights(static_cast<std::size_t>(c.tokens * c.k));
  RouteParams params;
  params.logits = device_logits.data();
  params.num_tokens = num_tokens.data();
  params.max_tokens = max_tokens;
  params.num_experts = c.experts;
  params.experts_per_token = c.k;
  params.normalise = c.normalise;
  params.experts = experts.data();
  params.weights = weights.data();
  params.chained = true;
  EXPECT_EQ(LaunchRoute(params, nullptr), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return {experts.Read(), weights.Read()};
}

void ExpectRoutesAsTheCpu(const Case& c, const std::vector<float>& logits) {
  SCOPED_TRACE(std::to_string(c.tokens) + " tokens, " + std::to_string(c.k) + " of " +
               std::to_string(c.experts));
  const Routed cpu = RouteOnCpu(c, logits);
  const Routed gpu = RouteOnGpu(c, logits, c.tokens + 19);
  EXPECT_EQ(gpu.experts, cpu.experts);
  testing::ExpectSameBits(gpu.weights, cpu.weights);
}

std::vector<float> RandomLogits(const Case& c, std::mt19937_64* random) {
  return testing::RandomFloats(static_cast<std::size_t>(c.tokens * c.experts), random, 2);
}

TEST(CudaRoute, RoutesAnyNumberOfTokensAndExpertsAsTheCpu) {
  std::mt19937_64 random(1);
  for (const std::int32_t experts : {1, 4, 8, 15, 16, 17, 60, 64, 65, 128, 160, 256, 384, 512}) {
    const std::int32_t k = std::min(experts, experts == 512 ? 10 : 8);
    const Case c = {3, experts, k};
    ExpectRoutesAsTheCpu(c, RandomLogits(c, &random));
  }
  for (const std::int32_t tokens : {1, 2, 7, 8, 9, 16, 17, 33}) {
    const Case c = {tokens, 128, 8, tokens % 2 == 0};
    ExpectRoutesAsTheCpu(c, RandomLogits(c, &random));
  }
  const Case all = {5, 16, 16};
  ExpectRoutesAsTheCpu(all, RandomLogits(all, &random));
}

TEST(CudaRoute, BreaksTiesToTheLowerExpert) {
  std::mt19937_64 random(2);
  const Case c = {9, 128, 8};
  std::vector<float> logits = RandomLogits(c, &random);
  for (float& logit : logits) logit = std::round(logit);  // many equal ones
  ExpectRoutesAsTheCpu(c, logits);
  ExpectRoutesAsTheCpu({2, 128, 8}, std::vector<float>(256));
}

TEST(CudaRoute, TreatsNanAndInfinityAsTheCpuWhereverTheyStand) {
  std::mt19937_64 random(3);
  for (const std::int32_t experts : {9, 60, 128}) {
    for (const float fault : {kNan, kInfinity, -kInfinity}) {
      const Case c = {16, experts, 8};
      std::vector<float> logits = RandomLogits(c, &random);
      for (std::int32_t t = 0; t < c.tokens; ++t) {
        for (int faults = 0; faults <= t % 4; ++faults) {
          const auto at = static_cast<std::int32_t>(random() % static_cast<unsigned>(experts));
          logits[static_cast<std::size_t>(t * experts + at)] = fault;
        }
      }
      // Also in the last place, where no later number takes its place.
      logits[static_cast<std::size_t>(experts - 1)] = fault;
      ExpectRoutesAsTheCpu(c, logits);
      ExpectRoutesAsTheCpu({2, experts, 8},
                           std::vector<float>(static_cast<std::size_t>(2 * experts), fault));
    }
  }
}

// Whether a fault is seen again by the maximum depends on its lane.
TEST(CudaRoute, TreatsASingleFaultAsTheCpuInEveryPlace) {
  std::mt19937_64 random(5);
  for (const std::int32_t experts : {9, 16, 60, 128}) {
    for (const float fault : {kNan, kInfinity, -kInfinity}) {
      const Case c = {experts, experts, 4};  // token t has it at expert t
      std::vector<float> logits = RandomLogits(c, &random);
      for (std::int32_t t = 0; t < experts; ++t) {
        logits[static_cast<std::size_t>(t * experts + t)] = fault;
      }
      ExpectRoutesAsTheCpu(c, logits);
    }
  }
}

TEST(CudaRoute, RoutesHugeAndTinyLogitsAsTheCpu) {
  const Case c = {1, 128, 8};
  std::vector<float> logits(128, -1000.0F);
  logits[90] = 1000.0F;
  logits[91] = 999.0F;
  ExpectRoutesAsTheCpu(c, logits);
}

TEST(CudaRoute, RefusesWhatItHasNoRoomFor) {
  RouteParams params;
  params.max_tokens = 1;
  params.num_experts = kMaxRoutedExperts + 1;
  params.experts_per_token = 8;
  EXPECT_EQ(LaunchRoute(params, nullptr), cudaErrorInvalidValue);
  params.num_experts = 128;
  params.experts_per_token = kMaxExpertsPerToken + 1;
  EXPECT_EQ(LaunchRoute(params, nullptr), cudaErrorInvalidValue);
}

// Routing and plan in one kernel give what the two kernels give.
TEST(CudaRoute, RoutesAndPlansFewTokensInOneKernelAsInTwo) {
  std::mt19937_64 random(4);
  for (const Case& c : {Case{1, 128, 8}, Case{2, 128, 8}, Case{9, 128, 8}, Case{64, 128, 8},
                        Case{33, 60, 4}, Case{40, 256, 8}, Case{5, 512, 10}, Case{3, 16, 2}}) {
    SCOPED_TRACE(c.tokens);
    const std::vector<float> logits = RandomLogits(c, &random);
    const Routed separate = RouteOnGpu(c, logits, c.tokens);
    const auto pairs = static_cast<std::size_t>(c.tokens * c.k);
    const auto num_experts = static_cast<std::size_t>(c.experts);
    DeviceArray<float> device_logits(logits);
    DeviceArray<std::int32_t> num_tokens(std::vector<std::int32_t>{c.tokens});
    DeviceArray<std::int32_t> experts(pairs);
    DeviceArray<float> weights(pairs);
    RouteParams route;
    route.logits = device_logits.data();
    route.num_tokens = num_tokens.data();
    route.max_tokens = std::min(c.tokens + 3, kMaxTokensOfRouteAndPlan);
    route.num_experts = c.experts;
    route.experts_per_token = c.k;
    route.experts = experts.data();
    route.weights = weights.data();
    route.chained = true;
    struct Plan {
      DeviceArray<std::int32_t> offsets, tokens, slots;
    };
    Plan plans[2] = {{DeviceArray<std::int32_t>(num_experts + 1), DeviceArray<std::int32_t>(pairs),
                      DeviceArray<std::int32_t>(pairs)},
                     {DeviceArray<std::int32_t>(num_experts + 1), DeviceArray<std::int32_t>(pairs),
                      DeviceArray<std::int32_t>(pairs)}};
    for (int i = 0; i < 2; ++i) {
      MoePlanParams plan;
      plan.experts = experts.data();
      plan.num_tokens = num_tokens.data();
      plan.max_tokens = route.max_tokens;
      plan.experts_per_token = c.k;
      plan.num_experts = c.experts;
      plan.offsets = plans[i].offsets.data();
      plan.tokens = plans[i].tokens.data();
      plan.slots = plans[i].slots.data();
      ASSERT_EQ(i == 0 ? LaunchRouteAndPlan(route, plan, nullptr) : LaunchMoePlan(plan, nullptr),
                cudaSuccess);
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    }
    EXPECT_EQ(experts.Read(), separate.experts);
    testing::ExpectSameBits(weights.Read(), separate.weights);
    EXPECT_EQ(plans[0].offsets.Read(), plans[1].offsets.Read());
    EXPECT_EQ(plans[0].tokens.Read(), plans[1].tokens.Read());
    EXPECT_EQ(plans[0].slots.Read(), plans[1].slots.Read());
  }
}

}  // namespace
}  // namespace millrace::cuda
