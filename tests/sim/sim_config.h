// What one simulated episode is like: sizes, limits, and how often each kind of event happens.
// Drawn from the seed, so that a seed is an episode; whole kinds of events are switched off in
// some. A value.
#ifndef MILLRACE_TESTS_SIM_SIM_CONFIG_H_
#define MILLRACE_TESTS_SIM_SIM_CONFIG_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "runtime/step/model_runner.h"
#include "scheduler/engine.h"

namespace millrace::sim {

enum class Event : std::uint8_t {
  kArrive,
  kLaunch,
  kCommit,
  kCancel,
  kDisconnect,  // a caller is gone: it reads no more, and the cancel comes some time later
  kStall,       // a reader stops reading, or goes on
  kTick,        // time passes without a step
  kSpoil,       // a row of the next step has no finite logits
  kFlush,       // no prefix is found any more
  kFailLaunch,  // the device is lost
  kFailAwait,
  kOutOfMemory,  // of the device, at a launch
  kDrain,        // no more arrivals; the episode ends when all have ended, or are cut off
};
inline constexpr std::size_t kNumEvents = 13;
inline constexpr std::array<std::string_view, kNumEvents> kEventNames = {
    "arrive", "launch", "commit",      "cancel",     "disconnect",    "stall", "tick",
    "spoil",  "flush",  "fail-launch", "fail-await", "out-of-memory", "drain"};

std::optional<Event> ParseEvent(std::string_view name);

struct SimConfig {
  std::uint64_t seed = 0;
  RunnerInfo runner;
  SchedulerOptions options;
  std::int32_t max_prompt = 0;
  std::int32_t max_output = 0;
  std::int32_t max_live = 0;   // clients at a time
  std::int32_t num_texts = 0;  // prompts begin like one of so many texts
  std::int32_t num_salts = 0;
  std::int32_t percent_bypass = 0;
  std::int32_t percent_deadline = 0;
  std::int32_t percent_tight = 0;  // of those with a deadline: about as soon as can be
  std::int32_t num_tenants = 1;
  std::int32_t max_priority = 0;      // and the least is its negative
  std::int32_t percent_siblings = 0;  // of requests: those with several answers
  std::int32_t max_tick = 50;         // milliseconds; deadlines are of its order
  std::int32_t max_events = 0;        // of the episode
  // Of a thousand events; the rest of kArrive, kLaunch and kCommit.
  std::array<std::uint32_t, kNumEvents> weight{};
};

SimConfig DrawConfig(std::uint64_t seed);

}  // namespace millrace::sim

#endif  // MILLRACE_TESTS_SIM_SIM_CONFIG_H_
