// The engine as other threads see it. Threads meet by events: the runner can be held in a step.
#include "scheduler/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/scheduler/scheduler_driver.h"

namespace millrace::testing {
namespace {

using ::testing::SizeIs;

// What the channel carried, until it was closed.
struct Outcome {
  std::vector<std::uint32_t> tokens;
  std::vector<TokenEvent> terminals;
};

class EngineTest : public ::testing::Test {
 protected:
  void Make(SchedulerOptions options = SmallOptions(), RunnerInfo info = SmallRunner()) {
    runner_ = std::make_unique<FakeRunner>(info);
    auto engine = Engine::Create(options, runner_.get(), Letters(), &clock_, &channel_);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    engine_->Start();
  }
  // Reads one output, blocking.
  void Receive() {
    auto output = channel_.Receive();
    if (!output) return;
    for (TokenEvent& event : output->events) {
      Outcome& to = outcomes_[event.id.value()];
      if (const auto* tokens = std::get_if<TokensEvent>(&event.what)) {
        for (const SampledToken& token : tokens->tokens) to.tokens.push_back(token.token);
        engine_->Credit(event.id, to.tokens.size());
      } else {
        to.terminals.push_back(std::move(event));
      }
    }
  }
  void ReceiveToEnd(std::uint64_t id) {
    while (outcomes_[id].terminals.empty()) Receive();
  }
  // Drains the engine and reads all that is left.
  void Drain(Duration how_long = std::chrono::hours(1)) {
    engine_->BeginDrain(clock_.Now() + how_long);
    while (!channel_.exhausted()) Receive();
    engine_->Join();
  }
  template <typename Event>
  bool EndedBy(std::uint64_t id) {
    const auto& terminals = outcomes_[id].terminals;
    return terminals.size() == 1 && std::holds_alternative<Event>(terminals[0].what);
  }
  absl::StatusCode FailureOf(std::uint64_t id) {
    const auto& terminals = outcomes_[id].terminals;
    if (terminals.size() != 1) return absl::StatusCode::kOk;
    const auto* failed = std::get_if<FailedEvent>(&terminals[0].what);
    return failed == nullptr ? absl::StatusCode::kOk : failed->status.code();
  }

  const SteadyClock clock_;
  TokenChannel channel_;
  std::unique_ptr<FakeRunner> runner_;
  std::unique_ptr<Engine> engine_;
  std::map<std::uint64_t, Outcome> outcomes_;
};

TEST_F(EngineTest, AnswersARequest) {
  Make();
  const Request request = MakeRequest(1, 10, 20);
  ASSERT_TRUE(engine_->Submit(request).ok());
  ReceiveToEnd(1);
  EXPECT_TRUE(EndedBy<FinishedEvent>(1));
  EXPECT_EQ(outcomes_[1].tokens, ExpectedTokens(request, kVocab));
}

TEST_F(EngineTest, ShowsARequestAsRunningWhileItsFirstStepRuns) {
  Make();
  runner_->Hold();
  ASSERT_TRUE(engine_->Submit(MakeRequest(1, 10, 2)).ok());
  runner_->WaitUntilBlocked();
  EXPECT_EQ(engine_->snapshot().running, 1);
  EXPECT_EQ(engine_->snapshot().waiting, 0);
  EXPECT_EQ(engine_->snapshot().kv_blocks_used, 3);
  runner_->Release();
  ReceiveToEnd(1);
}

TEST_F(EngineTest, RefusesWhatTheQueueDoesNotHoldWhileAStepRuns) {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 1;
  options.max_queue = 2;
  Make(options);
  runner_->Hold();
  ASSERT_TRUE(engine_->Submit(MakeRequest(1, 4, 2)).ok());
  runner_->WaitUntilBlocked();
  EXPECT_TRUE(engine_->Submit(MakeRequest(2, 4, 2)).ok());
  EXPECT_TRUE(engine_->Submit(MakeRequest(3, 4, 2)).ok());
  EXPECT_EQ(engine_->Submit(MakeRequest(4, 4, 2)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(engine_->snapshot().waiting, 2);
  EXPECT_EQ(engine_->snapshot().waiting_prompt_tokens, 8);
  runner_->Release();
  ReceiveToEnd(3);
  EXPECT_TRUE(engine_->Submit(MakeRequest(5, 4, 2)).ok());
  ReceiveToEnd(5);
}

TEST_F(EngineTest, FinishesWhatRunsDuringADrainAndTakesNothingNew) {
  Make();
  runner_->Hold();
  const Request request = MakeRequest(1, 4, 50);
  ASSERT_TRUE(engine_->Submit(request).ok());
  runner_->WaitUntilBlocked();
  engine_->BeginDrain(clock_.Now() + std::chrono::hours(1));
  EXPECT_EQ(engine_->Submit(MakeRequest(2, 4, 2)).code(), absl::StatusCode::kUnavailable);
  runner_->Release();
  Drain();
  EXPECT_EQ(outcomes_[1].tokens, ExpectedTokens(request, kVocab));
  EXPECT_FALSE(outcomes_.contains(2));
}

TEST_F(EngineTest, CutsOffWhatOutlivesTheDrain) {
  Make();
  runner_->Hold();
  ASSERT_TRUE(engine_->Submit(MakeRequest(1, 4, 200)).ok());
  runner_->WaitUntilBlocked();
  engine_->BeginDrain(clock_.Now());
  runner_->Release();
  Drain(Duration::zero());
  EXPECT_TRUE(EndedBy<ShutDownEvent>(1));
}

TEST_F(EngineTest, AnswersTheCancelThatEndsADrain) {
  Make();
  runner_->Hold();
  ASSERT_TRUE(engine_->Submit(MakeRequest(1, 4, 200)).ok());
  runner_->WaitUntilBlocked();
  engine_->BeginDrain(clock_.Now() + std::chrono::hours(1));
  engine_->Cancel(RequestId(1));
  runner_->Release();
  Drain();
  EXPECT_TRUE(EndedBy<CancelledEvent>(1));
}

TEST_F(EngineTest, EndsWithoutWorkWhenItIsDrained) {
  Make();
  Drain();
  EXPECT_TRUE(outcomes_.empty());
}

TEST_F(EngineTest, EndsARequestAtItsDeadlineThoughNothingElseHappens) {
  SchedulerOptions options = SmallOptions();
  options.output_window_tokens = 3;
  Make(options);
  Request request = MakeRequest(1, 4, 100);
  request.deadline = clock_.Now() + std::chrono::milliseconds(30);
  ASSERT_TRUE(engine_->Submit(request).ok());
  // Without credit it pauses; only time wakes the engine then.
  while (outcomes_[1].terminals.empty()) {
    const auto output = channel_.Receive();
    ASSERT_TRUE(output.has_value());
    for (const TokenEvent& event : output->events) {
      if (event.terminal()) outcomes_[1].terminals.push_back(event);
    }
  }
  EXPECT_EQ(FailureOf(1), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(EngineTest, AnswersEverybodyWhenTheDeviceIsLostAndEnds) {
  for (const bool in_launch : {true, false}) {
    SCOPED_TRACE(in_launch ? "in Launch" : "in Await");
    SchedulerOptions options = SmallOptions();
    options.max_num_seqs = 1;
    TokenChannel channel;
    FakeRunner runner(SmallRunner());
    in_launch ? runner.FailLaunchAt(3) : runner.FailAwaitAt(3);
    runner.Hold();
    const auto engine = *Engine::Create(options, &runner, Letters(), &clock_, &channel);
    engine->Start();
    ASSERT_TRUE(engine->Submit(MakeRequest(1, 4, 50)).ok());
    runner.WaitUntilBlocked();
    ASSERT_TRUE(engine->Submit(MakeRequest(2, 4, 50)).ok());
    runner.Release();
    std::map<std::uint64_t, absl::StatusCode> ends;
    while (auto output = channel.Receive()) {  // it ends by itself
      for (const TokenEvent& event : output->events) {
        if (const auto* failed = std::get_if<FailedEvent>(&event.what)) {
          ends[event.id.value()] = failed->status.code();
        }
      }
    }
    engine->Join();
    EXPECT_EQ(ends[1], absl::StatusCode::kInternal);
    EXPECT_EQ(ends[2], absl::StatusCode::kUnavailable);
    EXPECT_TRUE(engine->snapshot().failed);
    EXPECT_EQ(engine->Submit(MakeRequest(3, 4, 2)).code(), absl::StatusCode::kUnavailable);
  }
}

// From several threads, with a reader that credits.
TEST_F(EngineTest, FiveHundredRandomCancelsLeaveNothingAndOneEndEach) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (const std::int32_t in_flight : {1, 2}) {
    SchedulerOptions options = SmallOptions();
    options.max_queue = 1000;
    options.max_queue_tokens = 100000;
    RunnerInfo info = SmallRunner();
    info.max_in_flight = in_flight;
    TokenChannel channel;
    FakeRunner runner(info);
    const auto engine = *Engine::Create(options, &runner, Letters(), &clock_, &channel);
    engine->Start();
    std::vector<std::thread> clients;
    for (std::uint32_t t = 0; t < 4; ++t) {
      clients.emplace_back([&, t] {
        std::mt19937 rng(seed + t);
        for (std::uint32_t i = 0; i < 125; ++i) {
          const std::uint64_t id = t * 125 + i + 1;
          EXPECT_TRUE(engine->Submit(MakeRequest(id, 1 + rng() % 30, rng() % 30)).ok());
          if (rng() % 2 == 0) engine->Cancel(RequestId(id));
          if (rng() % 3 == 0) engine->Cancel(RequestId(1 + rng() % id));
        }
      });
    }
    std::map<std::uint64_t, int> ends;
    std::map<std::uint64_t, std::uint64_t> tokens;
    while (ends.size() < 500) {
      const auto output = channel.Receive();
      for (const TokenEvent& event : output->events) {
        if (event.terminal()) {
          ++ends[event.id.value()];
        } else {
          engine->Credit(event.id, ++tokens[event.id.value()]);
        }
      }
    }
    for (std::thread& client : clients) client.join();
    engine->BeginDrain(clock_.Now());
    while (auto output = channel.Receive()) EXPECT_THAT(output->events, SizeIs(0));
    engine->Join();
    for (const auto& [id, count] : ends) EXPECT_EQ(count, 1) << id;
    EXPECT_EQ(engine->snapshot().kv_blocks_used, 0);
    EXPECT_EQ(engine->snapshot().running, 0);
    EXPECT_EQ(engine->snapshot().waiting, 0);
  }
}

TEST_F(EngineTest, RefusesLimitsThatMakeNoSense) {
  FakeRunner runner(SmallRunner());
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 0;
  const auto engine = Engine::Create(options, &runner, Letters(), &clock_, &channel_);
  EXPECT_EQ(engine.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace millrace::testing
