// Whatever is submitted, cancelled, credited or left waiting: the scheduler keeps its promises, and
// every request gets the tokens it would get alone.
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>

#include "tests/scheduler/scheduler_driver.h"

namespace millrace::testing {
namespace {

using std::chrono::milliseconds;

class Random {
 public:
  explicit Random(std::uint32_t seed) : rng_(seed) {}
  std::uint32_t Below(std::uint32_t n) { return static_cast<std::uint32_t>(rng_() % n); }
  std::uint32_t Between(std::uint32_t a, std::uint32_t b) { return a + Below(b - a + 1); }
  bool Percent(std::uint32_t p) { return Below(100) < p; }

 private:
  std::mt19937_64 rng_;
};

Request RandomRequest(std::uint64_t id, Random* random) {
  Request request = MakeRequest(id, random->Between(1, 60), random->Between(0, 40));
  for (std::uint32_t& token : request.prompt_tokens) token = random->Below(kVocab);
  // Most begin like others do: one of three texts, up to some place.
  if (random->Percent(70)) {
    const std::uint32_t text = random->Below(3);
    const std::size_t common =
        random->Below(static_cast<std::uint32_t>(request.prompt_tokens.size()) + 1);
    for (std::size_t i = 0; i < common; ++i) {
      request.prompt_tokens[i] = static_cast<std::uint32_t>((text * 37 + i * 11) % kVocab);
    }
  }
  if (random->Percent(20)) request.cache_salt = random->Percent(50) ? "a" : "b";
  request.bypass_prefix_cache = random->Percent(10);
  SamplerParams& sampler = request.sampling.sampler;
  if (random->Percent(50)) {
    sampler.temperature = 0.5F + static_cast<float>(random->Below(100)) / 100;
    sampler.seed = random->Below(1000);
  }
  if (random->Percent(20)) sampler.frequency_penalty = 0.5F;
  if (random->Percent(20)) request.sampling.logit_bias = {{random->Below(kVocab), 1.0F}};
  if (random->Percent(10)) request.sampling.allowed_token_ids = {3, 5, 8};
  StoppingParams& stopping = request.stopping;
  if (random->Percent(50)) stopping.end_token_ids = {random->Below(kVocab), random->Below(kVocab)};
  if (random->Percent(20)) stopping.stop_token_ids = {random->Below(kVocab)};
  if (random->Percent(20)) stopping.min_new_tokens = random->Between(0, stopping.max_new_tokens);
  return request;
}

struct Setting {
  std::int32_t in_flight;
  std::int32_t blocks;
  std::int32_t budget;
  std::int32_t window;
};

class SchedulerRandom : public ::testing::TestWithParam<Setting> {
 protected:
  SchedulerDriver MakeDriver() const {
    RunnerInfo info = SmallRunner();
    info.max_in_flight = GetParam().in_flight;
    info.num_kv_blocks = GetParam().blocks;
    info.max_step_tokens = GetParam().budget;
    SchedulerOptions options = SmallOptions();
    options.max_num_batched_tokens = GetParam().budget;
    options.output_window_tokens = GetParam().window;
    return SchedulerDriver(options, info);
  }
};

// FALSIFY-CB-001: a step never exceeds the budget (the runner checks every batch as well).
// FALSIFY-CB-005: a hundred arrivals at random times all end.
// FALSIFY-CB-007: none that may generate ends empty.
// FALSIFY-CB-010: each has its own sampling, so each has the tokens it has alone, preempted or not.
TEST_P(SchedulerRandom, EveryRequestGetsTheTokensItGetsAlone) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Random random(seed);
  SchedulerDriver driver = MakeDriver();
  std::map<std::uint64_t, Request> requests;
  while (requests.size() < 100 || !driver.scheduler().idle()) {
    while (requests.size() < 100 && random.Percent(40)) {
      const std::uint64_t id = requests.size() + 1;
      requests[id] = RandomRequest(id, &random);
      driver.Submit(requests[id]);
    }
    driver.Step();
    for (const auto& [id, received] : driver.all()) {
      driver.scheduler().Credit(id, received.tokens.size());
    }
  }
  driver.RunToEnd();
  EXPECT_LE(driver.runner().largest_step(), GetParam().budget);
  for (const auto& [id, request] : requests) {
    SCOPED_TRACE("request " + std::to_string(id));
    const Received& got = driver.received(id);
    EXPECT_EQ(got.tokens, ExpectedTokens(request, kVocab));
    EXPECT_EQ(got.terminals, 1);
    ASSERT_TRUE(got.finished.has_value());
    EXPECT_EQ(got.finished->usage.completion_tokens, got.tokens.size());
    EXPECT_EQ(got.tokens.empty(), request.stopping.max_new_tokens == 0);
  }
  EXPECT_EQ(driver.scheduler().kv().num_free(), GetParam().blocks);
}

// The prefix of what it would get alone, for one that was cut off.
void ExpectPrefix(const std::vector<std::uint32_t>& got, const std::vector<std::uint32_t>& whole) {
  ASSERT_LE(got.size(), whole.size());
  EXPECT_TRUE(std::equal(got.begin(), got.end(), whole.begin()));
}

// Cancels, deadlines and readers that stop reading change nothing for the others.
TEST_P(SchedulerRandom, WhatIsCutOffHarmsNobodyAndLeavesNothing) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Random random(seed);
  SchedulerDriver driver = MakeDriver();
  std::map<std::uint64_t, Request> requests;
  std::set<std::uint64_t> disturbed;
  while (requests.size() < 100 || !driver.scheduler().idle()) {
    if (requests.size() < 100 && random.Percent(60)) {
      const std::uint64_t id = requests.size() + 1;
      Request request = RandomRequest(id, &random);
      if (random.Percent(20)) {
        request.deadline = driver.now() + milliseconds(random.Between(1, 30));
        disturbed.insert(id);
      }
      requests[id] = request;
      driver.Submit(std::move(request));
    }
    if (!requests.empty() && random.Percent(15)) {
      const std::uint64_t id = random.Between(1, static_cast<std::uint32_t>(requests.size()));
      driver.scheduler().Cancel(RequestId(id), driver.now());
      disturbed.insert(id);
      driver.TakeEvents();
    }
    if (!driver.Step()) driver.Advance(std::chrono::seconds(1));
    for (const auto& [id, received] : driver.all()) {
      // Every seventh never reads: it ends when patience does.
      if (id.value() % 7 != 0) driver.scheduler().Credit(id, received.tokens.size());
    }
  }
  driver.RunToEnd();
  for (const auto& [id, request] : requests) {
    SCOPED_TRACE("request " + std::to_string(id));
    const Received& got = driver.received(id);
    EXPECT_EQ(got.terminals, 1);
    const auto whole = ExpectedTokens(request, kVocab);
    ExpectPrefix(got.tokens, whole);
    if (got.finished) {
      EXPECT_EQ(got.tokens, whole);
    }
    if (!got.finished && !disturbed.contains(id)) {
      ASSERT_TRUE(got.failed.has_value());
      EXPECT_EQ(got.failed->code(), absl::StatusCode::kAborted);
      EXPECT_EQ(id % 7, 0U);
    }
  }
  EXPECT_EQ(driver.scheduler().kv().num_free(), GetParam().blocks);
}

// FALSIFY-CB-002: computed positions only go back by preemption.
// FALSIFY-CB-009: contexts are as long as what was computed, and their tables as long as they.
TEST_P(SchedulerRandom, SequencesOnlyEverAdvanceUnlessTheyArePreempted) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Random random(seed);
  SchedulerDriver driver = MakeDriver();
  std::map<RequestId, std::int32_t> computed;
  std::uint64_t submitted = 0;
  int restarts = 0;
  int preemptions = 0;
  while (submitted < 60 || !driver.scheduler().idle()) {
    if (submitted < 60 && random.Percent(30)) driver.Submit(RandomRequest(++submitted, &random));
    if (const StepPlan* plan = driver.Launch()) {
      preemptions += plan->preemptions;
      for (std::size_t i = 0; i < plan->sequences.size(); ++i) {
        const PlannedSequence& planned = plan->sequences[i];
        const std::int32_t before = plan->batch.context_len[i] - planned.num_tokens;
        const bool first = !computed.contains(planned.id);
        std::int32_t& known = computed[planned.id];
        if (before != known) {
          EXPECT_EQ(before % driver.runner().info().block_size, 0)
              << "only a preempted sequence begins again, after a prefix that is known";
          if (!first) ++restarts;
        }
        known = plan->batch.context_len[i];
      }
    }
    while (!driver.in_flight().empty() && random.Percent(60)) driver.Commit();
    for (const auto& [id, received] : driver.all()) {
      driver.scheduler().Credit(id, received.tokens.size());
    }
  }
  EXPECT_LE(restarts, preemptions);
}

// With nothing in flight while a step is planned: a step in flight is a reason of its own to wait.
class SchedulerInStep : public SchedulerRandom {};

// FALSIFY-CB-008: a sequence that has blocks is in every step, unless the budget is used up or a
// preemption made room for an older one.
TEST_P(SchedulerInStep, NoRunningSequenceStandsStill) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Random random(seed);
  SchedulerDriver driver = MakeDriver();
  std::vector<RequestId> running;
  std::uint64_t submitted = 0;
  while (submitted < 60 || !driver.scheduler().idle()) {
    if (submitted < 60 && random.Percent(30)) driver.Submit(RandomRequest(++submitted, &random));
    const StepPlan* plan = driver.Launch();
    if (plan == nullptr) {
      EXPECT_TRUE(running.empty());
      continue;
    }
    std::set<RequestId> in_step;
    for (const PlannedSequence& planned : plan->sequences) in_step.insert(planned.id);
    const bool full = plan->batch.num_tokens() == GetParam().budget;
    for (const RequestId id : running) {
      EXPECT_TRUE(in_step.contains(id) || full || plan->preemptions > 0) << id.value();
    }
    driver.Commit();
    running.clear();
    for (const RequestId id : in_step) {
      if (driver.received(id.value()).terminals == 0) running.push_back(id);
    }
    for (const auto& [id, received] : driver.all()) {
      driver.scheduler().Credit(id, received.tokens.size());
    }
  }
}

std::string NameOf(const ::testing::TestParamInfo<Setting>& info) {
  const Setting& s = info.param;
  return "InFlight" + std::to_string(s.in_flight) + "Blocks" + std::to_string(s.blocks) + "Budget" +
         std::to_string(s.budget) + "Window" + std::to_string(s.window);
}

INSTANTIATE_TEST_SUITE_P(Settings, SchedulerRandom,
                         ::testing::Values(Setting{0, 64, 32, 1024}, Setting{1, 64, 32, 1024},
                                           Setting{2, 64, 32, 1024}, Setting{1, 26, 32, 1024},
                                           Setting{2, 26, 32, 1024}, Setting{1, 26, 7, 8},
                                           Setting{2, 30, 9, 4}),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Settings, SchedulerInStep,
                         ::testing::Values(Setting{0, 64, 32, 1024}, Setting{1, 26, 32, 1024},
                                           Setting{1, 26, 7, 8}),
                         NameOf);

}  // namespace
}  // namespace millrace::testing
