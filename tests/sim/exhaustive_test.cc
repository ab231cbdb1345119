// Every order of events in a small world: three requests that fill a cache of four blocks, one
// cancel, one lost device. What random episodes may miss by chance is not missed here.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <vector>

#include "tests/sim/simulation.h"

namespace millrace::sim {
namespace {

constexpr std::uint64_t kRequests = 3;

enum class Kind : std::uint8_t { kSubmit, kLaunch, kCommit, kCancel, kFail };
struct Choice {
  Kind kind;
  std::uint64_t id = 0;
};

SimConfig SmallWorld(std::int32_t in_flight) {
  SimConfig config;
  config.seed = 1;
  config.runner = {.vocab = 97,
                   .max_context = 6,
                   .block_size = 2,
                   .num_kv_blocks = 4,
                   .max_step_tokens = 4,
                   .max_step_seqs = 3,
                   .max_in_flight = in_flight};
  config.options.max_num_seqs = 3;
  config.options.max_num_batched_tokens = 4;
  config.max_events = 1;
  return config;
}

// The first two begin alike.
Request MakeRequest(std::uint64_t id) {
  Request request;
  request.id = RequestId(id);
  request.prompt_tokens = {7, 8, static_cast<std::uint32_t>(id)};
  if (id == 3) request.prompt_tokens = {9};
  request.sampling.sampler.temperature = 0;
  request.stopping.max_new_tokens = id == 2 ? 3 : 2;
  return request;
}

class Search {
 public:
  explicit Search(std::int32_t in_flight) : config_(SmallWorld(in_flight)) {}

  void Run() {
    std::vector<Choice> path;
    Visit(&path);
  }
  std::uint64_t orders() const { return orders_; }

 private:
  // What has happened on the way, beside the simulation itself.
  struct State {
    std::uint64_t submitted = 0;
    bool cancelled = false;
    bool failed = false;
  };

  static void Play(const Choice& choice, Simulation* world, State* state) {
    switch (choice.kind) {
      case Kind::kSubmit:
        world->Submit(MakeRequest(++state->submitted));
        break;
      case Kind::kLaunch:
        world->Launch();
        break;
      case Kind::kCommit:
        world->Commit();
        break;
      case Kind::kCancel:
        state->cancelled = true;
        world->Cancel(RequestId(choice.id));
        break;
      case Kind::kFail:
        state->failed = true;
        world->FailCommit();
        break;
    }
  }

  // A launch is tried once between two changes: a second one would decide the same.
  std::vector<Choice> Enabled(const Simulation& world, const State& state,
                              const std::vector<Choice>& path) const {
    std::vector<Choice> out;
    if (world.over()) return out;
    if (state.submitted < kRequests) out.push_back({Kind::kSubmit});
    const bool in_flight = world.anything_in_flight();
    const bool just_launched = !path.empty() && path.back().kind == Kind::kLaunch;
    if (world.anything_live() && (!in_flight || config_.runner.max_in_flight == 2) &&
        !just_launched) {
      out.push_back({Kind::kLaunch});
    }
    if (in_flight) out.push_back({Kind::kCommit});
    for (std::uint64_t id = 1; !state.cancelled && id <= state.submitted; ++id) {
      if (world.live(RequestId(id))) out.push_back({Kind::kCancel, id});
    }
    if (in_flight && !state.failed) out.push_back({Kind::kFail});
    return out;
  }

  // A world cannot be copied, so each order is played from its beginning.
  void Visit(std::vector<Choice>* path) {
    std::vector<Choice> enabled;
    {
      Simulation world(config_);
      State state;
      for (const Choice& choice : *path) Play(choice, &world, &state);
      ASSERT_EQ(world.result().violation, "") << Describe(*path);
      enabled = Enabled(world, state, *path);
      if (enabled.empty()) {
        ++orders_;
        ASSERT_EQ(world.Finish().violation, "") << Describe(*path);
        return;
      }
    }
    for (const Choice& choice : enabled) {
      path->push_back(choice);
      Visit(path);
      path->pop_back();
      if (::testing::Test::HasFatalFailure()) return;
    }
  }

  static std::string Describe(const std::vector<Choice>& path) {
    constexpr const char* kNames[] = {"submit", "launch", "commit", "cancel", "fail"};
    std::string out;
    for (const Choice& choice : path) {
      out += kNames[static_cast<std::size_t>(choice.kind)];
      if (choice.kind == Kind::kCancel) out += std::to_string(choice.id);
      out += ' ';
    }
    return out;
  }

  const SimConfig config_;
  std::uint64_t orders_ = 0;
};

TEST(Exhaustive, EveryOrderOfEventsKeepsEveryPromise) {
  Search search(1);
  search.Run();
  std::printf("%llu orders\n", static_cast<unsigned long long>(search.orders()));
  EXPECT_GT(search.orders(), 1000U);
}

}  // namespace
}  // namespace millrace::sim
