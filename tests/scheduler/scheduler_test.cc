// What the scheduler decides, one rule a test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <variant>

#include "tests/scheduler/scheduler_driver.h"

namespace millrace::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

std::vector<std::uint64_t> Ids(const StepPlan& plan) {
  std::vector<std::uint64_t> ids;
  for (const PlannedSequence& planned : plan.sequences) ids.push_back(planned.id.value());
  return ids;
}

TEST(Scheduler, AdmitsInTheOrderOfArrival) {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 2;
  SchedulerDriver driver(options, SmallRunner());
  for (std::uint64_t id = 1; id <= 4; ++id) driver.Submit(MakeRequest(id, 3, id == 1 ? 1 : 5));
  EXPECT_THAT(Ids(*driver.Launch()), ElementsAre(1, 2));
  driver.Commit();  // the first one ends
  EXPECT_THAT(Ids(*driver.Launch()), ElementsAre(2, 3));
  EXPECT_EQ(driver.scheduler().num_waiting(), 1);
}

TEST(Scheduler, MixesDecodesAndAChunkOfAPromptInOneStep) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  driver.Submit(MakeRequest(1, 4, 10));
  driver.Step();
  driver.Submit(MakeRequest(2, 100, 10));
  const StepPlan& plan = *driver.Launch();
  EXPECT_EQ(plan.decode_tokens, 1);
  EXPECT_EQ(plan.prefill_tokens, 31);  // the rest of the budget
  EXPECT_THAT(plan.batch.logit_rows, SizeIs(1));
}

TEST(Scheduler, LetsOnlyTheLastTokenOfAPromptPayTheHead) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  driver.Submit(MakeRequest(1, 50, 3));
  EXPECT_THAT(driver.Launch()->batch.logit_rows, SizeIs(0));
  driver.Commit();
  EXPECT_THAT(driver.Launch()->batch.logit_rows, ElementsAre(17));
}

TEST(Scheduler, PreemptsTheYoungestAndGivesItTheSameTokensAgain) {
  RunnerInfo info = SmallRunner();
  info.num_kv_blocks = 6;  // 24 positions
  SchedulerDriver driver(SmallOptions(), info);
  const Request first = MakeRequest(1, 8, 14);
  const Request second = MakeRequest(2, 8, 14);
  driver.Submit(first);
  driver.Submit(second);
  driver.RunToEnd();
  EXPECT_EQ(driver.received(1).preemptions, 0U);
  EXPECT_GT(driver.received(2).preemptions, 0U);
  EXPECT_EQ(driver.received(1).tokens, ExpectedTokens(first, kVocab));
  EXPECT_EQ(driver.received(2).tokens, ExpectedTokens(second, kVocab));
}

TEST(Scheduler, ReservesAllBlocksOfAPromptOrNone) {
  RunnerInfo info = SmallRunner();
  info.num_kv_blocks = 10;
  SchedulerDriver driver(SmallOptions(), info);
  driver.Submit(MakeRequest(1, 20, 4));  // 5 blocks, 6 later
  driver.Submit(MakeRequest(2, 24, 1));  // 6: does not fit beside the first
  EXPECT_THAT(Ids(*driver.Launch()), ElementsAre(1));
  EXPECT_EQ(driver.scheduler().kv().num_free(), 5);
  driver.RunToEnd();
  EXPECT_EQ(driver.received(2).preemptions, 0U);
  EXPECT_EQ(driver.received(2).terminals, 1);
}

TEST(Scheduler, HoldsTheBlocksOfACancelledRequestUntilItsStepIsDone) {
  RunnerInfo info = SmallRunner();
  info.max_in_flight = 2;
  SchedulerDriver driver(SmallOptions(), info);
  driver.Submit(MakeRequest(1, 8, 10));
  driver.Launch();
  driver.scheduler().Cancel(RequestId(1), driver.now());
  driver.TakeEvents();
  EXPECT_TRUE(driver.received(1).cancelled);
  EXPECT_EQ(driver.scheduler().kv().num_free(), 62);
  EXPECT_EQ(driver.scheduler().kv().num_deferred(), 2);
  driver.Commit();
  EXPECT_EQ(driver.scheduler().kv().num_free(), 64);
}

TEST(Scheduler, CountsTokensThatAStepSampledForWhoHasEnded) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  driver.Submit(MakeRequest(1, 8, 10));
  driver.Submit(MakeRequest(2, 8, 1));
  driver.Launch();
  driver.scheduler().Cancel(RequestId(1), driver.now());
  driver.Commit();
  EXPECT_EQ(driver.unwanted(), 1);
}

TEST(Scheduler, IgnoresCancelsAndCreditsOfTheUnknown) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  driver.scheduler().Cancel(RequestId(9), driver.now());
  driver.scheduler().Credit(RequestId(9), 5);
  driver.TakeEvents();
  EXPECT_TRUE(driver.all().empty());
}

TEST(Scheduler, EndsWithAnEndTokenAndNamesIt) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  Request request = MakeRequest(1, 5, 20);
  const auto whole = ExpectedTokens(request, kVocab);
  request.stopping.end_token_ids = {whole[3]};
  const auto expected = ExpectedTokens(request, kVocab);
  driver.Submit(request);
  driver.RunToEnd();
  const Received& got = driver.received(1);
  EXPECT_EQ(got.tokens, expected);
  EXPECT_EQ(got.finished->reason, FinishReason::kStop);
  EXPECT_EQ(std::get<MatchedEndToken>(got.finished->match).token, whole[3]);
  EXPECT_THAT(got.text, SizeIs(expected.size() - 1));  // the end token is no text
}

TEST(Scheduler, EndsWithAStopTokenOfTheCaller) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  Request request = MakeRequest(1, 5, 20);
  const auto whole = ExpectedTokens(request, kVocab);
  request.stopping.stop_token_ids = {whole[2]};
  driver.Submit(request);
  driver.RunToEnd();
  EXPECT_EQ(std::get<MatchedStopToken>(driver.received(1).finished->match).token, whole[2]);
}

TEST(Scheduler, DrawsNoEndTokenBeforeTheLeastNumber) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  Request request = MakeRequest(1, 5, 20);
  for (std::uint32_t token = 0; token < kVocab; token += 2) {
    request.stopping.end_token_ids.push_back(token);
  }
  request.stopping.min_new_tokens = 10;
  driver.Submit(request);
  driver.RunToEnd();
  EXPECT_GE(driver.received(1).tokens.size(), 10U);
  EXPECT_EQ(driver.received(1).tokens, ExpectedTokens(request, kVocab));
}

TEST(Scheduler, StopsAtAStopStringAcrossTokensAndSendsNoneOfIt) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  Request request = MakeRequest(1, 5, 30);
  std::string text;
  for (const std::uint32_t token : ExpectedTokens(request, kVocab)) {
    text += static_cast<char>('A' + token % 26);
  }
  const std::string stop = text.substr(10, 3);
  request.stopping.stop_matcher = StopMatcher({stop}, false);
  driver.Submit(request);
  driver.RunToEnd();
  const Received& got = driver.received(1);
  const std::size_t end = text.find(stop);
  EXPECT_EQ(got.text, text.substr(0, end));
  EXPECT_THAT(got.tokens, SizeIs(end + 3));  // every sampled token is counted
  EXPECT_EQ(std::get<MatchedStopString>(got.finished->match).text, stop);
}

TEST(Scheduler, SendsHeldBackTextWhenTheEndComesForAnotherReason) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  Request request = MakeRequest(1, 5, 6);
  std::string text;
  for (const std::uint32_t token : ExpectedTokens(request, kVocab)) {
    text += static_cast<char>('A' + token % 26);
  }
  request.stopping.stop_matcher = StopMatcher({text.substr(3) + "?"}, false);
  driver.Submit(request);
  driver.RunToEnd();
  EXPECT_EQ(driver.received(1).text, text);
  EXPECT_EQ(driver.received(1).finished->reason, FinishReason::kLength);
}

TEST(Scheduler, OnlyPrefillsWhenNothingIsToBeGenerated) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  driver.Submit(MakeRequest(1, 70, 0));
  driver.RunToEnd();
  const Received& got = driver.received(1);
  EXPECT_TRUE(got.tokens.empty());
  EXPECT_EQ(got.finished->reason, FinishReason::kLength);
  EXPECT_EQ(got.finished->usage.prompt_tokens, 70U);
  EXPECT_EQ(driver.runner().steps(), 3U);
}

TEST(Scheduler, LeavesSpecialTokensOutOfTheTextOnRequest) {
  for (const bool skip : {true, false}) {
    SchedulerDriver driver(SmallOptions(), SmallRunner());
    Request request = MakeRequest(1, 5, 4);
    request.sampling.allowed_token_ids = {99};
    request.skip_special_tokens = skip;
    driver.Submit(request);
    driver.RunToEnd();
    EXPECT_THAT(driver.received(1).text, SizeIs(skip ? 0 : 4));
    EXPECT_THAT(driver.received(1).tokens, SizeIs(4));
  }
}

TEST(Scheduler, PausesAReaderThatIsBehindAndGoesOnWhenItHasRead) {
  SchedulerOptions options = SmallOptions();
  options.output_window_tokens = 5;
  SchedulerDriver driver(options, SmallRunner());
  const Request slow = MakeRequest(1, 4, 20);
  driver.Submit(slow);
  driver.RunToEnd();
  EXPECT_THAT(driver.received(1).tokens, SizeIs(5));
  EXPECT_EQ(driver.scheduler().NextTimeout(), driver.now() + options.max_pause);
  driver.scheduler().Credit(RequestId(1), 3);
  driver.RunToEnd();
  EXPECT_THAT(driver.received(1).tokens, SizeIs(8));
  driver.scheduler().Credit(RequestId(1), 100);
  driver.RunToEnd();
  EXPECT_EQ(driver.received(1).tokens, ExpectedTokens(slow, kVocab));
}

TEST(Scheduler, EndsAReaderThatIsBehindForTooLong) {
  SchedulerOptions options = SmallOptions();
  options.output_window_tokens = 5;
  SchedulerDriver driver(options, SmallRunner());
  driver.Submit(MakeRequest(1, 4, 20));
  driver.RunToEnd();
  driver.Advance(options.max_pause - std::chrono::milliseconds(1));
  driver.RunToEnd();
  EXPECT_EQ(driver.received(1).terminals, 0);
  driver.Advance(std::chrono::milliseconds(1));
  driver.RunToEnd();
  EXPECT_EQ(driver.received(1).failed->code(), absl::StatusCode::kAborted);
  EXPECT_EQ(driver.scheduler().kv().num_free(), 64);
}

TEST(Scheduler, GivesThePlaceOfAPausedReaderToOneThatCanRun) {
  SchedulerOptions options = SmallOptions();
  options.output_window_tokens = 5;
  RunnerInfo info = SmallRunner();
  info.num_kv_blocks = 8;
  SchedulerDriver driver(options, info);
  const Request slow = MakeRequest(1, 16, 10);
  driver.Submit(slow);
  driver.RunToEnd();  // paused, with 6 of 8 blocks
  const Request other = MakeRequest(2, 16, 5);
  driver.Submit(other);
  driver.RunToEnd();
  EXPECT_EQ(driver.received(2).tokens, ExpectedTokens(other, kVocab));
  driver.scheduler().Credit(RequestId(1), 5);
  driver.RunToEnd();
  driver.scheduler().Credit(RequestId(1), 10);
  driver.RunToEnd();
  EXPECT_EQ(driver.received(1).tokens, ExpectedTokens(slow, kVocab));
}

TEST(Scheduler, EndsAtTheDeadlineWaitingOrRunning) {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 1;
  SchedulerDriver driver(options, SmallRunner());
  Request running = MakeRequest(1, 4, 100);
  Request waiting = MakeRequest(2, 4, 100);
  running.deadline = waiting.deadline = driver.now() + std::chrono::milliseconds(10);
  driver.Submit(running);
  driver.Submit(waiting);
  EXPECT_EQ(driver.scheduler().NextTimeout(), running.deadline);
  driver.RunToEnd();
  for (const std::uint64_t id : {1, 2}) {
    EXPECT_EQ(driver.received(id).failed->code(), absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_THAT(driver.received(1).tokens, SizeIs(10));  // a step takes a millisecond here
}

TEST(Scheduler, FailsAllWhenTheDeviceIsLost) {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 1;
  SchedulerDriver driver(options, SmallRunner());
  driver.Submit(MakeRequest(1, 4, 10));
  driver.Submit(MakeRequest(2, 4, 10));
  driver.Step();
  driver.scheduler().FailAll(absl::InternalError("gone"), driver.now());
  driver.TakeEvents();
  EXPECT_EQ(driver.received(1).failed->code(), absl::StatusCode::kInternal);     // tokens are out
  EXPECT_EQ(driver.received(2).failed->code(), absl::StatusCode::kUnavailable);  // may be retried
  EXPECT_TRUE(driver.scheduler().idle());
}

TEST(Scheduler, CutsOffWhatIsLeftAtTheEndOfADrain) {
  SchedulerDriver driver(SmallOptions(), SmallRunner());
  driver.Submit(MakeRequest(1, 4, 10));
  driver.Step();
  driver.scheduler().ShutDownAll(driver.now());
  driver.TakeEvents();
  EXPECT_TRUE(driver.received(1).shut_down);
  EXPECT_EQ(driver.received(1).terminals, 1);
}

TEST(Scheduler, RunsOneStepAheadOfTheHost) {
  RunnerInfo info = SmallRunner();
  info.max_in_flight = 2;
  SchedulerDriver driver(SmallOptions(), info);
  const Request request = MakeRequest(1, 4, 6);
  driver.Submit(request);
  EXPECT_NE(driver.Launch(), nullptr);
  const StepPlan* ahead = driver.Launch();  // the input is what the first step samples
  ASSERT_NE(ahead, nullptr);
  ASSERT_THAT(ahead->batch.deferred, SizeIs(1));
  EXPECT_EQ(ahead->batch.deferred[0].ticket, StepTicket(1));
  driver.Commit();
  driver.RunToEnd();
  EXPECT_EQ(driver.received(1).tokens, ExpectedTokens(request, kVocab));
}

TEST(Scheduler, WaitsForTheValueThatPenaltiesLookAt) {
  RunnerInfo info = SmallRunner();
  info.max_in_flight = 2;
  SchedulerDriver driver(SmallOptions(), info);
  Request request = MakeRequest(1, 4, 12);
  request.sampling.sampler.presence_penalty = 1;
  driver.Submit(request);
  driver.Launch();
  EXPECT_EQ(driver.Launch(), nullptr);
  driver.RunToEnd();
  EXPECT_EQ(driver.received(1).tokens, ExpectedTokens(request, kVocab));
}

// One place, and a reader that is behind in it. Found by the simulation.
TEST(Scheduler, GivesThePlaceOfOneWhoseReaderIsBehindToAnother) {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 1;
  options.output_window_tokens = 2;
  SchedulerDriver driver(options, SmallRunner());
  driver.Submit(MakeRequest(1, 4, 10));
  driver.Submit(MakeRequest(2, 4, 2));
  driver.RunToEnd();  // the first one pauses after two tokens
  EXPECT_TRUE(driver.received(2).finished.has_value());
  EXPECT_FALSE(driver.received(1).finished.has_value());
  driver.scheduler().Credit(RequestId(1), 2);
  EXPECT_EQ(Ids(*driver.Launch()), std::vector<std::uint64_t>{1});
}

// The youngest would give up its own blocks, and nothing would run until something else happens.
// Found by the simulation.
TEST(Scheduler, TakesBlocksFromOneWhoseReaderIsBehindFirst) {
  RunnerInfo info = SmallRunner();
  info.num_kv_blocks = 4;
  SchedulerOptions options = SmallOptions();
  options.output_window_tokens = 2;
  SchedulerDriver driver(options, info);
  driver.Submit(MakeRequest(1, 9, 6));
  driver.Step();
  driver.Step();  // two tokens, three blocks: it pauses
  driver.Submit(MakeRequest(2, 4, 2));
  const StepPlan* plan = driver.Launch();
  ASSERT_NE(plan, nullptr);
  EXPECT_EQ(Ids(*plan), std::vector<std::uint64_t>{2});
  driver.Commit();
  plan = driver.Launch();  // needs a second block
  ASSERT_NE(plan, nullptr);
  EXPECT_EQ(Ids(*plan), std::vector<std::uint64_t>{2});
  EXPECT_EQ(plan->preemptions, 1);
}

// A request that goes on where `earlier` ended.
Request NextTurn(std::uint64_t id, const Request& earlier,
                 const std::vector<std::uint32_t>& answer) {
  Request next = MakeRequest(id, 5, 4);
  std::vector<std::uint32_t> prompt = earlier.prompt_tokens;
  prompt.insert(prompt.end(), answer.begin(), answer.end());
  prompt.insert(prompt.end(), next.prompt_tokens.begin(), next.prompt_tokens.end());
  next.prompt_tokens = std::move(prompt);
  return next;
}

class PrefixCaching : public ::testing::Test {
 protected:
  // Runs a chat of two turns; the second one as `change` makes it.
  template <typename Change>
  void RunTwoTurns(Change change) {
    first_ = MakeRequest(1, 22, 9);
    driver_.Submit(first_);
    driver_.RunToEnd();
    second_ = NextTurn(2, first_, driver_.received(1).tokens);
    change(&second_);
    driver_.Submit(second_);
    const StepPlan* plan = driver_.Launch();
    prefill_tokens_ = plan->prefill_tokens;
    stats_ = plan->prefix_cache;
    driver_.RunToEnd();
    EXPECT_EQ(driver_.received(2).tokens, ExpectedTokens(second_, kVocab));
    cached_tokens_ = driver_.received(2).finished->usage.cached_tokens;
  }

  SchedulerDriver driver_{SmallOptions(), SmallRunner()};
  Request first_, second_;
  std::int32_t prefill_tokens_ = 0;
  std::uint32_t cached_tokens_ = 0;
  PrefixCacheStats stats_;
};

// 22 + 9 tokens, of which the last was sampled and not computed: seven full blocks of four.
TEST_F(PrefixCaching, ResumesAChatWithoutComputingItAgain) {
  RunTwoTurns([](Request*) {});
  EXPECT_EQ(cached_tokens_, 28U);
  EXPECT_EQ(prefill_tokens_, 36 - 28);
  EXPECT_EQ(stats_.queried_tokens, 36);
  EXPECT_EQ(stats_.hit_tokens, 28);
}

TEST_F(PrefixCaching, FindsNothingUnderAnotherSalt) {
  RunTwoTurns([](Request* request) { request->cache_salt = "other"; });
  EXPECT_EQ(cached_tokens_, 0U);
  EXPECT_EQ(stats_.queried_tokens, 36);
  EXPECT_EQ(stats_.hit_tokens, 0);
}

TEST_F(PrefixCaching, IsNotAskedByARequestThatPassesItBy) {
  RunTwoTurns([](Request* request) { request->bypass_prefix_cache = true; });
  EXPECT_EQ(cached_tokens_, 0U);
  EXPECT_EQ(stats_.queried_tokens, 0);
}

TEST_F(PrefixCaching, KeepsNothingOfARequestThatPassesItBy) {
  Request first = MakeRequest(1, 20, 2);
  first.bypass_prefix_cache = true;
  driver_.Submit(first);
  driver_.RunToEnd();
  EXPECT_EQ(driver_.scheduler().kv().num_cached(), 0);
  EXPECT_EQ(driver_.scheduler().kv().num_free(), 64);
}

TEST_F(PrefixCaching, ComputesTheLastTokenOfAPromptThatIsAllThere) {
  Request first = MakeRequest(1, 24, 3);
  driver_.Submit(first);
  driver_.RunToEnd();
  first.id = RequestId(2);
  driver_.Submit(first);
  EXPECT_EQ(driver_.Launch()->prefill_tokens, 4);  // of the last block
  driver_.RunToEnd();
  EXPECT_EQ(driver_.received(2).tokens, driver_.received(1).tokens);
}

TEST_F(PrefixCaching, GivesAPreemptedSequenceBackWhatNobodyTook) {
  RunnerInfo info = SmallRunner();
  info.num_kv_blocks = 10;
  SchedulerDriver driver(SmallOptions(), info);
  const Request first = MakeRequest(1, 16, 9);
  const Request second = MakeRequest(2, 16, 9);
  driver.Submit(first);
  driver.Submit(second);
  std::int32_t recomputed = 0;
  while (const StepPlan* plan = driver.Launch()) {
    recomputed += plan->recomputed_tokens;
    driver.Commit();
  }
  EXPECT_EQ(driver.received(2).preemptions, 1U);
  EXPECT_EQ(driver.received(2).tokens, ExpectedTokens(second, kVocab));
  // Without the cache all of the sixteen and more would be computed again.
  EXPECT_LT(recomputed, 16);
}

}  // namespace
}  // namespace millrace::testing
