// What a KV cache that is too small for everybody costs whom.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <utility>

#include "tests/sim/timed_world.h"

namespace millrace::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr StepTimes kTimes = {milliseconds(20), milliseconds(1), microseconds(500)};

class World : public TimedWorld {
 public:
  explicit World(std::int32_t kv_blocks) : TimedWorld(kTimes, milliseconds(250), kv_blocks) {}

  void Run() {
    while (!Step().empty()) {
    }
  }
  std::uint32_t preemptions(RequestId id) const { return finished_.at(id).preemptions; }
  TimePoint end(RequestId id) const { return ends_.at(id); }
  std::size_t num_finished() const { return finished_.size(); }

 private:
  void OnTokens(RequestId) override {}
  void OnFinished(RequestId id, const RequestUsage& usage) override {
    finished_[id] = usage;
    ends_[id] = now();
  }

  std::map<RequestId, RequestUsage> finished_;
  std::map<RequestId, TimePoint> ends_;
};

TEST(TightPool, TwoLongPromptsDoNotPreemptEachOtherInTurn) {
  std::uint32_t most = 0;
  // From a pool that holds one of them to one that holds both.
  for (std::int32_t blocks = 112; blocks <= 224; ++blocks) {
    World world(blocks);
    const RequestId first = world.Submit(3000, 500);
    const RequestId second = world.Submit(3000, 500);
    world.Run();
    ASSERT_EQ(world.num_finished(), 2U);
    most = std::max({most, world.preemptions(first), world.preemptions(second)});
  }
  std::printf("two long prompts in a tight pool: at most %u preemptions each\n", most);
  EXPECT_LE(most, 1U);
}

// The pool holds eight of these. The ninth waits or is computed again; the eight hardly notice.
TEST(TightPool, AFullPoolHarmsOneRequest) {
  constexpr std::int32_t kPrompt = 320;
  constexpr std::int32_t kOutput = 320;
  constexpr std::int32_t kHolds = 8;
  constexpr std::int32_t kBlocks = kHolds * (kPrompt + kOutput) / 32;
  const auto run = [](int requests) {
    World world(kBlocks);
    const TimePoint begin = world.now();
    for (int i = 0; i < requests; ++i) world.Submit(kPrompt, kOutput);
    world.Run();
    EXPECT_EQ(world.num_finished(), static_cast<std::size_t>(requests));
    TimePoint end{};
    int harmed = 0;
    for (std::uint64_t id = 1; id <= static_cast<std::uint64_t>(requests); ++id) {
      if (world.preemptions(RequestId(id)) > 0) ++harmed;
      if (id <= kHolds) end = std::max(end, world.end(RequestId(id)));
    }
    std::printf("%d requests, a pool for %d: all finish, %d preempted, the first %d in %.1f s\n",
                requests, kHolds, harmed, kHolds, ToSeconds(end - begin));
    return std::pair(harmed, ToSeconds(end - begin));
  };
  const auto [none, alone] = run(kHolds);
  const auto [harmed, beside] = run(kHolds + 1);
  EXPECT_EQ(none, 0);
  EXPECT_LE(harmed, 1);
  // The ninth's part of each step, its prompt, and that prompt again.
  EXPECT_LE(beside, alone * 1.05 + 2 * kPrompt * ToSeconds(kTimes.prefill_token));
}

}  // namespace
}  // namespace millrace::sim
