// Running streams keep their pace under any load of prompts: the serving scheduler on a simulated
// clock, with a device whose steps cost a fixed time, something for every token, and up to 15 %
// more or less.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/token_bytes.h"
#include "scheduler/scheduler.h"
#include "tests/sim/hash_device.h"
#include "tests/sim/rng.h"

namespace millrace::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

struct Load {
  std::int32_t streams;
  Duration target;       // --itl-target
  Duration step;         // without a token
  Duration per_decode;   // token of a stream
  Duration per_prefill;  // token of a prompt
  std::int32_t prompt;   // tokens of each of the prompts that keep coming
};

constexpr std::int32_t kSteps = 4000;

class World {
 public:
  explicit World(const Load& load)
      : load_(load),
        runner_{.vocab = 97,
                .max_context = 100'000,
                .block_size = 32,
                .num_kv_blocks = 20'000,
                .max_step_tokens = 2048,
                .max_step_seqs = 64,
                .max_in_flight = 1},
        device_(runner_),
        scheduler_({.max_num_seqs = 64,
                    .max_num_batched_tokens = 2048,
                    .max_queue_tokens = 1 << 30,
                    .itl_target = load.target,
                    .output_window_tokens = 1 << 30},
                   runner_, Bytes()) {
    for (std::int32_t i = 0; i < load.streams; ++i) Submit(8, 50'000);
    for (int i = 0; i < 200; ++i) Step();  // the pace without prompts is known
    between_.clear();
  }

  // Prompts keep coming: there are always some to compute.
  void Run() {
    for (int i = 0; i < kSteps; ++i) {
      while (scheduler_.num_waiting() < 2) Submit(load_.prompt, 1);
      Step();
    }
  }

  // Longest of a hundred but one.
  Duration P99() {
    std::sort(between_.begin(), between_.end());
    return between_[between_.size() * 99 / 100];
  }
  Duration bound() const {
    const Duration step = load_.step + load_.streams * load_.per_decode;
    return std::max(2 * step, load_.target);
  }
  std::int64_t prompt_tokens() const { return prompt_tokens_; }
  // What steps of the longest time allowed could compute.
  double ideal_prompt_tokens() const {
    const Duration left = bound() - load_.step - load_.streams * load_.per_decode;
    const double step = ToSeconds(left) / ToSeconds(load_.per_prefill);
    const double most = std::min(step, 2048.0 - load_.streams);
    // Short prompts: all that may be admitted to a step.
    return kSteps * std::min(most, load_.prompt * 2.0);
  }

 private:
  static std::shared_ptr<const TokenBytes> Bytes() {
    return std::make_shared<TokenBytes>(std::vector<std::string>(97, "x"),
                                        std::vector<bool>(97, false));
  }

  void Submit(std::int32_t prompt, std::uint32_t output) {
    Request request;
    request.id = RequestId(++submitted_);
    for (std::int32_t i = 0; i < prompt; ++i) request.prompt_tokens.push_back(rng_.Below(97));
    request.stopping.max_new_tokens = output;
    request.arrival = now_;
    scheduler_.Submit(std::move(request), now_);
  }

  void Step() {
    StepPlan plan = scheduler_.Schedule(now_);
    ASSERT_FALSE(plan.empty());
    const auto ticket = device_.Launch(plan.batch);
    ASSERT_TRUE(ticket.ok());
    scheduler_.Launched(plan, *ticket);
    const Duration exact = load_.step + plan.decode_tokens * load_.per_decode +
                           plan.prefill_tokens * load_.per_prefill;
    const Duration took = exact * rng_.Between(85, 115) / 100;
    now_ += took;
    prompt_tokens_ += plan.prefill_tokens;
    scheduler_.Commit(plan, *device_.Await(*ticket), took, now_);
    for (const TokenEvent& event : scheduler_.TakeEvents()) {
      if (!std::holds_alternative<TokensEvent>(event.what)) continue;
      if (event.id.value() > static_cast<std::uint64_t>(load_.streams)) continue;
      auto& last = last_token_[event.id];
      if (last != TimePoint{}) between_.push_back(now_ - last);
      last = now_;
    }
  }

  const Load load_;
  const RunnerInfo runner_;
  HashDevice device_;
  Scheduler scheduler_;
  Rng rng_{7};
  TimePoint now_{std::chrono::seconds(1)};
  std::uint64_t submitted_ = 0;
  std::int64_t prompt_tokens_ = 0;
  std::map<RequestId, TimePoint> last_token_;
  std::vector<Duration> between_;
};

double Milliseconds(Duration d) { return 1e3 * ToSeconds(d); }

TEST(Latency, TokensOfRunningStreamsKeepTheirPaceUnderAnyLoadOfPrompts) {
  const Load loads[] = {
      {1, milliseconds(250), milliseconds(20), microseconds(500), microseconds(400), 4000},
      {8, milliseconds(250), milliseconds(20), milliseconds(2), milliseconds(1), 4000},
      {32, milliseconds(250), milliseconds(40), milliseconds(4), milliseconds(6), 1000},
      {8, milliseconds(10), milliseconds(20), milliseconds(2), milliseconds(1), 500},
      {8, milliseconds(25), milliseconds(3), microseconds(100), microseconds(20), 8000},
      {8, milliseconds(25), milliseconds(3), microseconds(100), microseconds(20), 30},
  };
  for (const Load& load : loads) {
    World world(load);
    world.Run();
    std::printf(
        "%2d streams, target %3.0f ms: p99 between tokens %.1f ms of %.1f, %.0f prompt tokens a "
        "step\n",
        load.streams, Milliseconds(load.target), Milliseconds(world.P99()),
        Milliseconds(world.bound()), static_cast<double>(world.prompt_tokens()) / kSteps);
    EXPECT_LE(world.P99(), world.bound());
    EXPECT_GE(static_cast<double>(world.prompt_tokens()), 0.35 * world.ideal_prompt_tokens())
        << "and prompts get on";
  }
}

}  // namespace
}  // namespace millrace::sim
