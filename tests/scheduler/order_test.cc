// Who goes first: classes, tenants, deadlines, arrivals, and several answers to a request.
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/error_details.h"
#include "tests/scheduler/scheduler_driver.h"

namespace millrace::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

SchedulerOptions OnePlace() {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 1;
  return options;
}

Request Of(std::uint64_t id, std::int32_t priority, std::string tenant = "") {
  Request request = MakeRequest(id, 4, 2);
  request.priority = priority;
  request.tenant = std::move(tenant);
  return request;
}

// The order in which requests get their first step.
std::vector<std::uint64_t> OrderOfFirstSteps(SchedulerDriver* driver) {
  std::vector<std::uint64_t> order;
  std::set<std::uint64_t> seen;
  for (;;) {
    const StepPlan* const plan = driver->Launch();
    if (plan == nullptr && driver->in_flight().empty()) return order;
    if (plan != nullptr) {
      for (const PlannedSequence& planned : plan->sequences) {
        if (seen.insert(planned.id.value()).second) order.push_back(planned.id.value());
      }
    }
    if (!driver->in_flight().empty()) driver->Commit();
  }
}

using Order = std::vector<std::uint64_t>;

TEST(Order, AHigherClassGoesFirst) {
  SchedulerDriver driver(OnePlace(), SmallRunner());
  driver.Submit(Of(1, 0));
  driver.Submit(Of(2, -5));
  driver.Submit(Of(3, 10));
  driver.Submit(Of(4, 0));
  EXPECT_EQ(OrderOfFirstSteps(&driver), (Order{3, 1, 4, 2}));
}

TEST(Order, WaitingLiftsALowClassToTheHighest) {
  SchedulerDriver driver(OnePlace(), SmallRunner());
  driver.Submit(Of(1, -1));
  driver.Advance(seconds(11));  // two steps of age: it would be above the next one's class
  driver.Submit(Of(2, 0));
  EXPECT_EQ(OrderOfFirstSteps(&driver), (Order{1, 2})) << "same class now, earlier deadline";
}

TEST(Order, AgeCountsForNothingWithinOneClass) {
  SchedulerDriver driver(OnePlace(), SmallRunner());
  driver.Submit(Of(1, 0, "greedy"));
  driver.Submit(Of(2, 0, "greedy"));
  driver.Submit(Of(3, 0, "greedy"));
  driver.Step();  // the first is admitted and charged
  driver.Advance(seconds(50));
  driver.Submit(Of(4, 0, "modest"));
  // The modest one is lifted to the greedy one's count, which grows while its first one ends.
  EXPECT_EQ(OrderOfFirstSteps(&driver), (Order{1, 4, 2, 3}));
}

TEST(Order, AnEarlierDeadlineGoesFirst) {
  SchedulerDriver driver(OnePlace(), SmallRunner());
  driver.Submit(Of(1, 0));
  Request hurried = Of(2, 0);
  hurried.deadline = driver.now() + seconds(20);
  driver.Submit(hurried);
  Request patient = Of(3, 0);
  patient.deadline = driver.now() + seconds(1000);  // no later than one that has none
  driver.Submit(patient);
  EXPECT_EQ(OrderOfFirstSteps(&driver), (Order{2, 1, 3}));
}

TEST(Order, ATenantsRequestThatFitsPassesAnothersThatDoesNotForSomeTime) {
  RunnerInfo runner = SmallRunner();
  runner.num_kv_blocks = 12;
  for (const Duration wait : {seconds(1), seconds(31)}) {
    SchedulerDriver driver(SmallOptions(), runner);
    driver.Submit(MakeRequest(1, 20, 8));  // 5 to 7 blocks
    driver.Step();
    Request large = MakeRequest(2, 40, 1);  // 10 blocks
    large.tenant = "large";
    driver.Submit(large);
    driver.Advance(wait);
    Request small = MakeRequest(3, 4, 1);
    small.tenant = "small";
    driver.Submit(small);
    Request behind = MakeRequest(4, 4, 1);
    behind.tenant = "large";
    driver.Submit(behind);
    const Order order = OrderOfFirstSteps(&driver);
    ASSERT_EQ(order.size(), 4U);
    if (wait >= seconds(30)) {
      EXPECT_EQ(order[1], 2U) << "nobody passes it any more";
    } else {
      EXPECT_EQ(order, (Order{1, 3, 2, 4})) << "but never within its tenant";
    }
  }
}

TEST(Order, AFullQueueTurnsAwayWhoHasTheMostInIt) {
  SchedulerOptions options = OnePlace();
  options.max_queue = 3;
  options.max_queue_tokens = 1000;
  SchedulerDriver driver(options, SmallRunner());
  driver.Submit(Of(1, 0, "greedy"));
  driver.Step();
  for (std::uint64_t id = 2; id <= 4; ++id) driver.Submit(Of(id, 0, "greedy"));
  driver.Submit(Of(5, 0, "modest"));
  driver.TakeEvents();
  ASSERT_TRUE(driver.received(4).failed.has_value()) << "the last in the order";
  EXPECT_EQ(driver.received(4).failed->code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(RetryAfter(*driver.received(4).failed).has_value());
  driver.RunToEnd();
  for (const std::uint64_t id : {1, 2, 3, 5}) {
    EXPECT_TRUE(driver.received(id).finished.has_value()) << id;
  }
}

TEST(Order, NoPromptTokenIsComputedForACallThatCannotMeetItsDeadline) {
  RunnerInfo runner = SmallRunner();
  runner.max_step_tokens = 64;
  SchedulerOptions options = SmallOptions();
  options.max_num_batched_tokens = 64;
  SchedulerDriver driver(options, runner);
  driver.Submit(MakeRequest(1, 200, 1));  // a millisecond for 64 tokens: that is the pace
  driver.RunToEnd();
  Request doomed = MakeRequest(2, 200, 1);
  doomed.deadline = driver.now() + milliseconds(2);  // it takes three
  driver.Submit(doomed);
  EXPECT_EQ(driver.Launch(), nullptr);
  ASSERT_TRUE(driver.received(2).failed.has_value());
  EXPECT_EQ(driver.received(2).failed->code(), absl::StatusCode::kDeadlineExceeded);
  Request possible = MakeRequest(3, 200, 1);
  possible.deadline = driver.now() + milliseconds(9);
  driver.Submit(possible);
  driver.RunToEnd();
  EXPECT_TRUE(driver.received(3).finished.has_value());
}

// A prompt that is known but for its end costs what that costs.
TEST(Order, WhatTheCacheKnowsSavesACallFromItsDeadline) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  driver.Submit(MakeRequest(1, 200, 1));
  driver.RunToEnd();  // and teaches what prompts cost
  Request again = MakeRequest(1, 200, 1);
  again.id = RequestId(2);
  again.deadline = driver.now() + milliseconds(3);  // the whole prompt takes seven
  driver.Submit(again);
  driver.RunToEnd();
  EXPECT_TRUE(driver.received(2).finished.has_value());
  Request other = MakeRequest(3, 200, 1);
  other.deadline = driver.now() + milliseconds(3);
  driver.Submit(other);
  driver.RunToEnd();
  EXPECT_EQ(driver.received(3).failed->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(driver.received(3).tokens.size(), 0U);
}

// It had taken the blocks of one whose reader is behind; the step was empty then, and the engine
// slept though others could run.
TEST(Order, ADoomedCallThatGotRoomLeavesItToTheNext) {
  SchedulerOptions options = SmallOptions();
  options.output_window_tokens = 2;
  RunnerInfo runner = SmallRunner();
  runner.num_kv_blocks = 24;
  SchedulerDriver driver(options, runner);
  driver.Submit(MakeRequest(1, 70, 10));
  driver.RunToEnd();  // its reader is behind now
  ASSERT_EQ(driver.scheduler().num_running(), 1);
  Request doomed = MakeRequest(2, 90, 1);
  doomed.deadline = driver.now() + milliseconds(1);
  driver.Submit(doomed);
  driver.Submit(MakeRequest(3, 4, 1));
  const StepPlan* const plan = driver.Launch();
  ASSERT_NE(plan, nullptr);
  EXPECT_TRUE(driver.received(2).failed.has_value());
  EXPECT_EQ(plan->sequences[0].id, RequestId(3));
}

TEST(Order, TwoTenantsAtTenToOneGetTheSame) {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 4;
  options.max_queue = 10000;
  SchedulerDriver driver(options, SmallRunner());
  std::uint64_t id = 0;
  const auto submit = [&](const std::string& tenant) {
    ++id;
    const auto odd = static_cast<std::uint32_t>(id);
    Request request = MakeRequest(id, 8 + odd % 17, 1 + odd % 23);
    request.tenant = tenant;
    driver.Submit(request);
  };
  for (int i = 0; i < 2000; ++i) submit("attacker");
  for (int i = 0; i < 200; ++i) submit("victim");
  std::map<bool, std::int64_t> tokens;  // of victims and attackers
  while (driver.scheduler().shares().num_waiting() == 2) {
    const StepPlan* const plan = driver.Launch();
    ASSERT_NE(plan, nullptr);
    for (const PlannedSequence& planned : plan->sequences) {
      tokens[planned.id.value() > 2000] += planned.num_tokens;
    }
    driver.Commit();
  }
  const double ratio = static_cast<double>(tokens[false]) / static_cast<double>(tokens[true]);
  EXPECT_GT(tokens[true], 4000);
  EXPECT_NEAR(ratio, 1, 0.05);
}

TEST(Siblings, ShareFullBlocksAndComputeTheTailThemselves) {
  for (const bool bypass : {false, true}) {
    SchedulerDriver driver(SmallOptions(), SmallRunner());
    Request request = MakeRequest(1, 10, 3);  // 2 blocks of 4 and 2 more
    request.num_sequences = 3;
    request.bypass_prefix_cache = bypass;
    driver.Submit(request);
    ASSERT_NE(driver.Launch(), nullptr);
    EXPECT_EQ(driver.in_flight().front().sequences.size(), 1U) << "the first computes the prompt";
    EXPECT_EQ(driver.in_flight().front().prefill_tokens, 10);
    driver.Commit();
    const StepPlan* const plan = driver.Launch();
    ASSERT_NE(plan, nullptr);
    EXPECT_EQ(plan->sequences.size(), 3U);
    EXPECT_EQ(plan->decode_tokens, 1);
    EXPECT_EQ(plan->prefill_tokens, 2 * 2) << "their tails";
    driver.RunToEnd();
    ASSERT_TRUE(driver.received(1).finished.has_value());
    EXPECT_EQ(driver.received(1).finished->usage.completion_tokens, 9U);
    EXPECT_EQ(driver.received(1).finished->usage.prompt_tokens, 10U);
    EXPECT_EQ(driver.scheduler().kv().num_free(), driver.scheduler().kv().num_blocks());
    // Nobody else finds what a request that passes the cache by has computed.
    Request other = MakeRequest(2, 10, 1);
    other.prompt_tokens = request.prompt_tokens;
    driver.Submit(other);
    driver.RunToEnd();
    EXPECT_EQ(driver.received(2).finished->usage.cached_tokens, bypass ? 0U : 8U);
  }
}

// Whose first answer has begun is not turned away any more, and nobody is in its place.
TEST(Order, AFullQueueTurnsNobodyAwayForAnswersThatHaveBegun) {
  SchedulerOptions options = OnePlace();
  options.max_queue = 3;
  SchedulerDriver driver(options, SmallRunner());
  Request many = Of(1, 0, "greedy");
  many.num_sequences = 8;
  driver.Submit(many);
  driver.Step();
  driver.Submit(Of(2, 0, "modest"));
  driver.TakeEvents();
  EXPECT_EQ(driver.received(2).terminals, 0);
  driver.RunToEnd();
  EXPECT_TRUE(driver.received(2).finished.has_value());
}

// A tenant that keeps something of no urgency in the queue saves nothing up for what is urgent.
TEST(Order, ATenantThatHasNoPartInARoundSavesNothingUp) {
  SchedulerDriver driver(OnePlace(), SmallRunner());
  driver.Submit(Of(1, -10, "patient"));
  std::uint64_t id = 1;
  for (int i = 0; i < 20; ++i) driver.Submit(Of(++id, 0, "busy"));
  for (int i = 0; i < 30; ++i) driver.Step();  // "patient" waits all the time
  ASSERT_EQ(driver.received(1).terminals, 0);
  std::vector<std::uint64_t> patient;
  for (int i = 0; i < 10; ++i) {
    driver.Submit(Of(++id, 0, "patient"));
    patient.push_back(id);
  }
  const Order order = OrderOfFirstSteps(&driver);
  int in_a_row = 0;
  int longest = 0;
  for (std::size_t i = 0; i < 10; ++i) {
    const bool is_patient = std::find(patient.begin(), patient.end(), order[i]) != patient.end();
    in_a_row = is_patient ? in_a_row + 1 : 0;
    longest = std::max(longest, in_a_row);
  }
  EXPECT_LE(longest, 2) << "they take turns";
}

TEST(Siblings, HaveRandomStreamsOfTheirOwn) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  Request request = MakeRequest(1, 4, 2);
  request.num_sequences = 2;
  driver.Submit(request);
  driver.Step();
  const StepPlan* const plan = driver.Launch();
  ASSERT_NE(plan, nullptr);
  std::set<std::uint32_t> indexes;
  for (const RowSampling& row : plan->batch.sampling) indexes.insert(row.index);
  EXPECT_EQ(indexes, (std::set<std::uint32_t>{0, 1}));
}

TEST(Siblings, EndTogetherWhenTheirRequestIsCancelled) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  Request request = MakeRequest(1, 10, 30);
  request.num_sequences = 4;
  driver.Submit(request);
  for (int i = 0; i < 5; ++i) driver.Step();
  driver.scheduler().Cancel(RequestId(1), driver.now());
  driver.TakeEvents();
  EXPECT_TRUE(driver.received(1).cancelled);
  EXPECT_TRUE(driver.scheduler().idle());
  driver.RunToEnd();
  EXPECT_EQ(driver.scheduler().kv().num_free(), driver.scheduler().kv().num_blocks());
}

TEST(Siblings, PrefillAloneEndsEach) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  Request request = MakeRequest(1, 10, 0);
  request.num_sequences = 3;
  driver.Submit(request);
  driver.RunToEnd();
  EXPECT_TRUE(driver.received(1).finished.has_value());
  EXPECT_TRUE(driver.scheduler().idle());
}

// A prefix is another tenant's as little as it is under another salt.
TEST(Tenants, DoNotFindEachOthersPrefixes) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  const auto run = [&](std::uint64_t id, const std::string& tenant, const std::string& salt) {
    Request request = MakeRequest(id, 12, 1);
    request.prompt_tokens = MakeRequest(1, 12, 1).prompt_tokens;
    request.tenant = tenant;
    request.cache_salt = salt;
    driver.Submit(request);
    driver.RunToEnd();
    return driver.received(id).finished->usage.cached_tokens;
  };
  EXPECT_EQ(run(1, "a", ""), 0U);
  EXPECT_EQ(run(2, "b", ""), 0U);
  EXPECT_EQ(run(3, "", "a"), 0U);
  EXPECT_EQ(run(4, "a", ""), 8U);
}

}  // namespace
}  // namespace millrace::testing
