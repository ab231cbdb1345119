// The router in one kernel on the (emulated) GPU against the CPU: logits and choice of the scalar
// level, bit for bit, and the CPU backend's plan.
#include "kernels/cuda/router.h"

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/moe.h"
#include "runtime/backend/cpu/moe_plan.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/matmul_cases.h"
#include "tests/kernels/float_test_support.h"

namespace millrace::cuda {
namespace {

using testing::DeviceArray;
using testing::MatmulOperands;

struct Case {
  std::int32_t tokens;
  std::int32_t experts = 128;
  std::int32_t k = 8;
  std::int64_t hidden = 256;
  std::int32_t spare = 0;  // the launch is for so many more tokens
  bool normalise = true;
};

struct Routed {
  std::vector<float> logits;
  std::vector<std::int32_t> experts;
  std::vector<float> weights;
};

Routed RouteOnCpu(const Case& c, MatmulOperands* router) {
  Routed out;
  out.experts.resize(static_cast<std::size_t>(c.tokens * c.k));
  out.weights.resize(out.experts.size());
  for (std::int32_t t = 0; t < c.tokens; ++t) {
    const std::vector<float> logits = router->Product(0, t);
    cpu::SelectMoe(cpu::Isa::kScalar)
        .fns.route(logits.data(), c.experts, c.k, c.normalise, out.experts.data() + t * c.k,
                   out.weights.data() + t * c.k);
    out.logits.insert(out.logits.end(), logits.begin(), logits.end());
  }
  return out;
}

// The device's memory of a router; for what the step needs and no more, so that a token too many
// would be seen.
class Device {
 public:
  Device(const Case& c, MatmulOperands* router)
      : case_(c),
        weights_(router->LaidOut()),
        rows_(router->DeviceRows()),
        logits_(Size(c.tokens * c.experts)),
        num_tokens_(std::vector<std::int32_t>{c.tokens}),
        experts_(Size(c.tokens * c.k)),
        expert_weights_(Size(c.tokens * c.k)),
        offsets_(Size(c.experts + 1)),
        tokens_(Size(c.tokens * c.k)),
        slots_(Size(c.tokens * c.k)),
        statistics_(Size(c.experts)),
        counter_(std::vector<std::int32_t>{0}) {}

  RouterParams Params() {
    RouterParams params;
    MatmulParams& product = params.product;
    product.num_matrices = 1;
    product.matrices[0] = {.w = weights_.data(),
                           .form = WeightForm::kF32,
                           .n = case_.experts,
                           .x = rows_.data(),
                           .y = logits_.data(),
                           .y_stride = case_.experts};
    product.k = case_.hidden;
    product.count = num_tokens_.data();
    product.max_rows = case_.tokens + case_.spare;
    product.chained = true;
    RouteParams& route = params.route;
    route.logits = logits_.data();
    route.num_tokens = num_tokens_.data();
    route.max_tokens = product.max_rows;
    route.num_experts = case_.experts;
    route.experts_per_token = case_.k;
    route.normalise = case_.normalise;
    route.experts = experts_.data();
    route.weights = expert_weights_.data();
    MoePlanParams& plan = params.plan;
    plan.experts = experts_.data();
    plan.num_tokens = num_tokens_.data();
    plan.max_tokens = product.max_rows;
    plan.experts_per_token = case_.k;
    plan.num_experts = case_.experts;
    plan.offsets = offsets_.data();
    plan.tokens = tokens_.data();
    plan.slots = slots_.data();
    plan.statistics = statistics_.data();
    params.counter = counter_.data();
    return params;
  }

  void Poison() {
    logits_.Poison();
    experts_.Poison();
    expert_weights_.Poison();
    offsets_.Poison();
    tokens_.Poison();
    slots_.Poison();
    statistics_.Poison();
  }

  void ExpectRouted(const Routed& expected) {
    testing::ExpectSameBits(logits_.Read(), expected.logits);
    EXPECT_EQ(experts_.Read(), expected.experts);
    testing::ExpectSameBits(expert_weights_.Read(), expected.weights);
    EXPECT_EQ(counter_.Read(), std::vector<std::int32_t>{0});
    cpu::MoePlan plan;
    plan.Build(expected.experts, case_.k, case_.experts);
    EXPECT_EQ(tokens_.Read(), plan.tokens);
    EXPECT_EQ(slots_.Read(), plan.slots);
    std::vector<std::int32_t> counts(Size(case_.experts));
    for (const cpu::MoePlan::Group& group : plan.groups) {
      counts[static_cast<std::size_t>(group.expert)] = group.count;
    }
    EXPECT_EQ(statistics_.Read(), counts);
    const std::vector<std::int32_t> offsets = offsets_.Read();
    EXPECT_EQ(offsets.front(), 0);
    for (std::size_t e = 0; e < counts.size(); ++e) {
      EXPECT_EQ(offsets[e + 1], offsets[e] + counts[e]) << e;
    }
  }

 private:
  static std::size_t Size(std::int32_t size) { return static_cast<std::size_t>(size); }

  const Case case_;
  DeviceArray<std::byte> weights_, rows_;
  DeviceArray<float> logits_;
  DeviceArray<std::int32_t> num_tokens_, experts_;
  DeviceArray<float> expert_weights_;
  DeviceArray<std::int32_t> offsets_, tokens_, slots_, statistics_, counter_;
};

MatmulOperands RandomRouter(const Case& c, std::mt19937* random) {
  return {DType::kF32, c.experts, c.hidden, 0, c.tokens, random};
}

// Twice, since a kernel leaves its counter as it found it.
void ExpectRoutesAsTheCpu(const Case& c, MatmulOperands router) {
  SCOPED_TRACE(std::to_string(c.tokens) + " tokens, " + std::to_string(c.k) + " of " +
               std::to_string(c.experts) + ", hidden " + std::to_string(c.hidden));
  const Routed expected = RouteOnCpu(c, &router);
  Device device(c, &router);
  for (int i = 0; i < 2; ++i) {
    device.Poison();
    ASSERT_EQ(LaunchRouter(device.Params(), nullptr), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    device.ExpectRouted(expected);
  }
}

TEST(CudaRouter, RoutesAnyNumberOfTokensAsTheCpu) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (std::int32_t tokens = 1; tokens <= kMaxTokensOfRouterTail; ++tokens) {
    const Case c = {.tokens = tokens,
                    .spare = std::min(tokens % 3, kMaxTokensOfRouterTail - tokens),
                    .normalise = tokens % 2 == 0};
    ExpectRoutesAsTheCpu(c, RandomRouter(c, &random));
  }
}

TEST(CudaRouter, RoutesToAnyNumberOfExpertsAsTheCpu) {
  std::mt19937 random(2);
  for (const std::int32_t experts : {1, 4, 9, 16, 60, 64, 128, 160, 256, 512}) {
    for (const std::int32_t tokens : {1, 5}) {
      const Case c = {.tokens = tokens,
                      .experts = experts,
                      .k = std::min(experts, experts == 512 ? 10 : 8),
                      .hidden = 96};
      ExpectRoutesAsTheCpu(c, RandomRouter(c, &random));
    }
  }
}

// Whole rounds of loads, parts of one, and a tail; and rows so long that four have no room.
TEST(CudaRouter, TakesRowsOfAnyLengthAsTheCpu) {
  std::mt19937 random(3);
  for (const std::int64_t hidden : {1, 17, 64, 100, 320, 2047, 2048, 2049, 4160, 5000}) {
    for (const std::int32_t tokens : {1, 3}) {
      const Case c = {.tokens = tokens, .experts = 20, .k = 3, .hidden = hidden};
      ExpectRoutesAsTheCpu(c, RandomRouter(c, &random));
    }
  }
}

TEST(CudaRouter, KeepsNansAndInfinitiesWhereTheCpuHasThem) {
  std::mt19937 random(4);
  const Case c = {.tokens = 6, .experts = 60, .k = 4, .hidden = 64};
  MatmulOperands router = RandomRouter(c, &random);
  std::vector<float> row(64, 0.5F);
  row[63] = testing::kNan;
  router.SetActivations(1, row);
  row[63] = testing::kInfinity;
  router.SetActivations(4, row);
  ExpectRoutesAsTheCpu(c, router);
}

TEST(CudaRouter, IsOneKernelForFewTokensOnly) {
  const auto chosen = [](WeightForm form, std::int64_t k, std::int32_t tokens,
                         bool allowed = true) {
    return ChooseRouter({.form = form, .k = k, .tokens = tokens, .allowed = allowed}).fused;
  };
  EXPECT_TRUE(chosen(WeightForm::kF32, 2048, 1));
  EXPECT_TRUE(chosen(WeightForm::kF32, 7168, kMaxTokensOfRouterTail));
  EXPECT_FALSE(chosen(WeightForm::kF32, 2048, kMaxTokensOfRouterTail + 1));
  EXPECT_FALSE(chosen(WeightForm::kF32, 2048, 1, false));
  EXPECT_FALSE(chosen(WeightForm::kBF16, 2048, 1));
  EXPECT_FALSE(chosen(WeightForm::kF32, 12289, 1));
}

TEST(CudaRouter, RefusesWhatItDoesNotServe) {
  std::mt19937 random(5);
  const Case c = {.tokens = 2, .hidden = 64};
  MatmulOperands router = RandomRouter(c, &random);
  Device device(c, &router);
  const auto refused = [&](auto change) {
    RouterParams params = device.Params();
    change(&params);
    return LaunchRouter(params, nullptr) == cudaErrorInvalidValue;
  };
  EXPECT_TRUE(refused([](RouterParams* p) { p->counter = nullptr; }));
  EXPECT_TRUE(refused([](RouterParams* p) { p->product.max_rows = kMaxTokensOfRouterTail + 1; }));
  EXPECT_TRUE(refused([](RouterParams* p) { p->product.matrices[0].form = WeightForm::kF16; }));
  EXPECT_TRUE(refused([](RouterParams* p) { p->product.num_matrices = 2; }));
  EXPECT_TRUE(refused([](RouterParams* p) { p->product.matrices[0].n = 127; }));
  EXPECT_TRUE(refused([](RouterParams* p) { p->plan.experts = nullptr; }));
  EXPECT_TRUE(refused([](RouterParams* p) { p->route.experts_per_token = 9; }));
  cudaGetLastError();
}

}  // namespace
}  // namespace millrace::cuda
