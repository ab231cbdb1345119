// Running streams keep their pace under any load of prompts.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <vector>

#include "tests/sim/timed_world.h"

namespace millrace::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

struct Load {
  std::int32_t streams;
  Duration target;  // --itl-target
  StepTimes times;
  std::int32_t prompt;  // tokens of each of the prompts that keep coming
};

constexpr std::int32_t kSteps = 4000;

// Prompts keep coming: there are always some to compute.
class World : public TimedWorld {
 public:
  explicit World(const Load& load) : TimedWorld(load.times, load.target), load_(load) {
    for (std::int32_t i = 0; i < load.streams; ++i) Submit(8, 50'000);
    for (int i = 0; i < 200; ++i) Step();  // the pace without prompts is known
    between_.clear();
  }

  void Run() {
    for (int i = 0; i < kSteps; ++i) {
      while (scheduler().num_waiting() < 2) Submit(load_.prompt, 1);
      prompt_tokens_ += Step().prefill_tokens;
    }
  }

  // Longest of a hundred but one.
  Duration P99() {
    std::sort(between_.begin(), between_.end());
    return between_[between_.size() * 99 / 100];
  }
  Duration bound() const {
    const Duration step = load_.times.step + load_.streams * load_.times.decode_token;
    return std::max(2 * step, load_.target);
  }
  std::int64_t prompt_tokens() const { return prompt_tokens_; }
  // What steps of the longest time allowed could compute.
  double ideal_prompt_tokens() const {
    const Duration left = bound() - load_.times.step - load_.streams * load_.times.decode_token;
    const double step = ToSeconds(left) / ToSeconds(load_.times.prefill_token);
    const double most = std::min(step, 2048.0 - load_.streams);
    // Short prompts: all that may be admitted to a step.
    return kSteps * std::min(most, load_.prompt * 2.0);
  }

 private:
  void OnTokens(RequestId id) override {
    if (id.value() > static_cast<std::uint64_t>(load_.streams)) return;
    auto& last = last_token_[id];
    if (last != TimePoint{}) between_.push_back(now() - last);
    last = now();
  }

  const Load load_;
  std::int64_t prompt_tokens_ = 0;
  std::map<RequestId, TimePoint> last_token_;
  std::vector<Duration> between_;
};

double Milliseconds(Duration d) { return 1e3 * ToSeconds(d); }

TEST(Latency, TokensOfRunningStreamsKeepTheirPaceUnderAnyLoadOfPrompts) {
  const Load loads[] = {
      {1, milliseconds(250), {milliseconds(20), microseconds(500), microseconds(400)}, 4000},
      {8, milliseconds(250), {milliseconds(20), milliseconds(2), milliseconds(1)}, 4000},
      {32, milliseconds(250), {milliseconds(40), milliseconds(4), milliseconds(6)}, 1000},
      {8, milliseconds(10), {milliseconds(20), milliseconds(2), milliseconds(1)}, 500},
      {8, milliseconds(25), {milliseconds(3), microseconds(100), microseconds(20)}, 8000},
      {8, milliseconds(25), {milliseconds(3), microseconds(100), microseconds(20)}, 30},
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
