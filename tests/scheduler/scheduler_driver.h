// Drives a Scheduler by hand, step by step on a clock of its own, and keeps what came out.
#ifndef MILLRACE_TESTS_SCHEDULER_SCHEDULER_DRIVER_H_
#define MILLRACE_TESTS_SCHEDULER_SCHEDULER_DRIVER_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/scheduler.h"
#include "tests/support/fake_runner.h"

namespace millrace::testing {

constexpr std::uint32_t kVocab = 100;

// Token t stands for one letter, so that stop strings can be written; token 99 is special.
inline std::shared_ptr<const TokenBytes> Letters() {
  std::vector<std::string> bytes;
  for (std::uint32_t t = 0; t < kVocab; ++t)
    bytes.push_back(std::string(1, static_cast<char>('A' + t % 26)));
  std::vector<bool> special(kVocab, false);
  special[99] = true;
  return std::make_shared<TokenBytes>(std::move(bytes), std::move(special));
}

struct Received {
  std::vector<std::uint32_t> tokens;
  std::string text;
  int terminals = 0;
  std::optional<FinishedEvent> finished;
  std::optional<absl::Status> failed;
  bool cancelled = false;
  bool shut_down = false;
  std::uint32_t preemptions = 0;
};

class SchedulerDriver {
 public:
  SchedulerDriver(SchedulerOptions options, RunnerInfo info)
      : options_(options), runner_(info), scheduler_(options, info, Letters()) {}

  Scheduler& scheduler() { return scheduler_; }
  FakeRunner& runner() { return runner_; }
  TimePoint now() const { return now_; }
  void Advance(Duration by) { now_ += by; }
  const Received& received(std::uint64_t id) { return received_[RequestId(id)]; }
  const std::map<RequestId, Received>& all() const { return received_; }
  const std::deque<StepPlan>& in_flight() const { return plans_; }
  // Tokens that steps sampled for sequences that had ended.
  std::int32_t unwanted() const { return unwanted_; }

  void Submit(Request request) {
    request.arrival = now_;
    scheduler_.Submit(std::move(request), now_);
  }

  // Launches if something can run and there is room in flight; nullptr if nothing was launched.
  const StepPlan* Launch() {
    const auto limit = static_cast<std::size_t>(std::max(1, runner_.info().max_in_flight));
    if (plans_.size() >= limit) return nullptr;
    StepPlan plan = scheduler_.Schedule(now_);
    scheduler_.CheckInvariants();
    TakeEvents();
    if (plan.empty()) return nullptr;
    const auto ticket = runner_.Launch(plan.batch);
    EXPECT_TRUE(ticket.ok()) << ticket.status();
    scheduler_.Launched(plan, *ticket);
    tickets_.push_back(*ticket);
    plans_.push_back(std::move(plan));
    return &plans_.back();
  }

  void Commit() {
    const auto result = runner_.Await(tickets_.front());
    ASSERT_TRUE(result.ok()) << result.status();
    now_ += std::chrono::milliseconds(1);
    unwanted_ += scheduler_.Commit(plans_.front(), *result, std::chrono::milliseconds(1), now_);
    tickets_.pop_front();
    plans_.pop_front();
    scheduler_.CheckInvariants();
    TakeEvents();
  }

  // One step, with as many in flight as there may be. False when nothing runs and nothing can.
  bool Step() {
    const bool launched = Launch() != nullptr;
    const auto limit = static_cast<std::size_t>(std::max(1, runner_.info().max_in_flight));
    if (launched && plans_.size() < limit) return true;
    if (plans_.empty()) return false;
    Commit();
    return true;
  }
  void RunToEnd() {
    while (Step()) {
    }
  }

  void TakeEvents() {
    for (TokenEvent& event : scheduler_.TakeEvents()) {
      Received& to = received_[event.id];
      EXPECT_EQ(to.terminals, 0) << "nothing follows the end of request " << event.id.value();
      if (event.terminal()) ++to.terminals;
      if (auto* tokens = std::get_if<TokensEvent>(&event.what)) {
        for (const SampledToken& token : tokens->tokens) to.tokens.push_back(token.token);
        to.text += tokens->released_bytes;
      } else if (auto* finished = std::get_if<FinishedEvent>(&event.what)) {
        to.finished = *finished;
        to.preemptions = finished->usage.preemptions;
      } else if (auto* failed = std::get_if<FailedEvent>(&event.what)) {
        to.failed = failed->status;
      } else if (std::holds_alternative<CancelledEvent>(event.what)) {
        to.cancelled = true;
      } else {
        to.shut_down = true;
      }
    }
  }

 private:
  const SchedulerOptions options_;
  FakeRunner runner_;
  Scheduler scheduler_;
  std::int32_t unwanted_ = 0;
  TimePoint now_ = TimePoint(std::chrono::seconds(1));
  std::deque<StepPlan> plans_;
  std::deque<StepTicket> tickets_;
  std::map<RequestId, Received> received_;
};

inline RunnerInfo SmallRunner() {
  return {.vocab = static_cast<std::int32_t>(kVocab),
          .max_context = 256,
          .block_size = 4,
          .num_kv_blocks = 64,
          .max_step_tokens = 32,
          .max_step_seqs = 8,
          .max_in_flight = 1,
          .moe = true};
}

inline SchedulerOptions SmallOptions() {
  SchedulerOptions options;
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 32;
  options.max_queue_tokens = 1 << 20;
  options.itl_target = std::chrono::seconds(10);
  return options;
}

// A greedy request whose prompt is `prompt` tokens that differ by id.
inline Request MakeRequest(std::uint64_t id, std::uint32_t prompt, std::uint32_t max_new_tokens) {
  Request request;
  request.id = RequestId(id);
  for (std::uint32_t i = 0; i < prompt; ++i) {
    request.prompt_tokens.push_back(static_cast<std::uint32_t>((id * 31 + i * 7) % kVocab));
  }
  request.sampling.sampler.temperature = 0;
  request.stopping.max_new_tokens = max_new_tokens;
  return request;
}

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_SCHEDULER_SCHEDULER_DRIVER_H_
