#include "runtime/runner/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace millrace {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kGigabyte = 1'000'000'000;

// Qwen3-30B-A3B at Q4_K_M on a machine with room.
MemoryRequest LargeModel(std::int64_t available) {
  return {.available_bytes = available,
          .weight_bytes = 18 * kGigabyte,
          .scratch_bytes = kGigabyte / 5,
          .kv_bytes_per_token = 98304,
          .block_size = 32,
          .model_context = 40960,
          .max_num_seqs = 64};
}

void ExpectRefused(const MemoryRequest& request, absl::StatusCode code, const std::string& words) {
  const auto plan = PlanMemory(request);
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.status().code(), code) << plan.status();
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr(words));
}

TEST(MemoryPlan, GivesEverySequenceAFullContextWhereThereIsRoom) {
  const auto plan = PlanMemory(LargeModel(1000 * kGigabyte));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->context, 40960);
  EXPECT_EQ(plan->num_kv_blocks, 64 * 40960 / 32);
  EXPECT_THAT(plan->line, HasSubstr("(the model's)"));
}

TEST(MemoryPlan, GivesWhatMemoryHoldsWhereThatIsLess) {
  const MemoryRequest request = LargeModel(21 * kGigabyte);
  const auto plan = PlanMemory(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_LT(plan->context, 40960);
  EXPECT_GE(plan->context, 2048);
  EXPECT_EQ(plan->context, plan->num_kv_blocks * 32);  // one sequence may use it all
  const std::int64_t kv = plan->num_kv_blocks * std::int64_t{32} * 98304;
  EXPECT_LT(kv + request.weight_bytes + request.scratch_bytes, request.available_bytes);
  EXPECT_THAT(plan->line, HasSubstr("what memory holds"));
}

TEST(MemoryPlan, RefusesAContextThatIsOfNoUse) {
  ExpectRefused(LargeModel(18'700'000'000), absl::StatusCode::kResourceExhausted, "less than 2048");
  ExpectRefused(LargeModel(10 * kGigabyte), absl::StatusCode::kResourceExhausted, "18.00 GB");
}

TEST(MemoryPlan, ServesASmallModelWithASmallContext) {
  MemoryRequest request = LargeModel(100 * kGigabyte);
  request.model_context = 512;  // the model, not memory, puts it below
  EXPECT_EQ(PlanMemory(request)->context, 512);
}

TEST(MemoryPlan, TakesWhatIsAskedForOrRefusesItWithTheNumbers) {
  MemoryRequest request = LargeModel(21 * kGigabyte);
  request.context = 4096;
  EXPECT_EQ(PlanMemory(request)->context, 4096);
  request.context = 40960;
  ExpectRefused(request, absl::StatusCode::kResourceExhausted, "--ctx 40960 does not fit");
  request.context = 40961;
  ExpectRefused(request, absl::StatusCode::kInvalidArgument, "trained for 40960");
}

TEST(MemoryPlan, MakesTheCacheAsLargeAsItIsToldTo) {
  MemoryRequest request = LargeModel(30 * kGigabyte);
  request.kv_cache_bytes = 2 * kGigabyte;
  const auto plan = PlanMemory(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->num_kv_blocks, 2 * kGigabyte / (32 * 98304));
  request.kv_cache_bytes = 12 * kGigabyte;
  ExpectRefused(request, absl::StatusCode::kResourceExhausted, "--kv-cache-bytes 12000000000");
  request.kv_cache_bytes = 1000;  // less than one block
  ExpectRefused(request, absl::StatusCode::kResourceExhausted, "does not fit");
}

TEST(MemoryPlan, RoundsAContextUpToWholeBlocks) {
  MemoryRequest request = LargeModel(100 * kGigabyte);
  request.model_context = 100;
  request.max_num_seqs = 2;
  EXPECT_EQ(PlanMemory(request)->num_kv_blocks, 2 * 4);
}

}  // namespace
}  // namespace millrace
