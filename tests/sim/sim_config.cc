#include "tests/sim/sim_config.h"

#include <algorithm>
#include <chrono>

#include "tests/sim/rng.h"

namespace millrace::sim {
namespace {

void DrawSizes(Rng* rng, SimConfig* config) {
  RunnerInfo& runner = config->runner;
  runner.vocab = 97;
  runner.block_size = 1 << rng->Between(1, 4);
  runner.max_step_tokens = rng->Between(4, 40);
  runner.max_step_seqs = rng->Between(1, 8);
  runner.max_in_flight = rng->Between(0, 2);
  runner.moe = true;
  config->max_prompt = rng->Between(1, 60);
  config->max_output = rng->Between(1, 40);
  // Sometimes long answers of many, in a cache that holds one of them: preemptions without end.
  const bool crowded = rng->Percent(10);
  if (crowded) {
    runner.block_size = 2;
    config->max_prompt = rng->Between(1, 4);
    config->max_output = 40;
  }
  runner.max_context = config->max_prompt + config->max_output;
  // From a cache that holds one request to one that holds all.
  const std::int32_t one = runner.max_context / runner.block_size + 1;
  runner.num_kv_blocks = one + (crowded ? 0 : rng->Between(0, rng->Percent(50) ? one : 6 * one));
  SchedulerOptions& options = config->options;
  options.max_num_seqs = crowded ? 8 : rng->Between(1, 8);
  options.max_num_batched_tokens = rng->Between(4, 48);
  options.max_queue = rng->Between(1, 12);
  options.max_queue_tokens = std::int64_t{4} * runner.num_kv_blocks * runner.block_size;
  options.itl_target = std::chrono::milliseconds(rng->Percent(50) ? 5 : 1000);
  options.output_window_tokens = rng->Percent(50) ? 1024 : rng->Between(1, 12);
  options.max_preemptions = static_cast<std::uint32_t>(rng->Percent(50) ? 8 : rng->Between(1, 3));
  options.max_pause = std::chrono::milliseconds(rng->Between(5, 400));
}

}  // namespace

std::optional<Event> ParseEvent(std::string_view name) {
  const auto found = std::find(kEventNames.begin(), kEventNames.end(), name);
  if (found == kEventNames.end()) return std::nullopt;
  return static_cast<Event>(found - kEventNames.begin());
}

SimConfig DrawConfig(std::uint64_t seed) {
  Rng rng(Mix(seed, 0xC0F1));
  SimConfig config;
  config.seed = seed;
  DrawSizes(&rng, &config);
  config.max_live = rng.Between(1, 16);
  config.num_texts = rng.Between(1, 4);
  config.num_salts = rng.Between(1, 3);
  config.percent_bypass = rng.Percent(50) ? 0 : 20;
  config.percent_deadline = rng.Percent(50) ? 0 : 30;
  config.percent_tight = rng.Percent(50) ? 0 : 50;
  config.num_tenants = rng.Percent(50) ? 1 : rng.Between(2, 4);
  config.max_priority = rng.Percent(50) ? 0 : rng.Between(1, 3);
  config.percent_siblings = rng.Percent(50) ? 0 : 20;
  config.max_tick = rng.Percent(70) ? 50 : 4000;
  // Sometimes prompts alone, each several times and with a deadline.
  if (rng.Percent(5)) {
    config.max_output = 0;
    config.percent_siblings = 60;
    config.percent_deadline = 80;
  }
  // Sometimes tenants and time alone decide.
  if (rng.Percent(10)) {
    config.num_tenants = 3;
    config.max_priority = 0;
    config.percent_siblings = 0;
    config.max_tick = 4000;
    config.runner.max_step_seqs = config.options.max_num_seqs;
    const std::int32_t most = config.runner.max_context / config.runner.block_size + 1;
    config.runner.num_kv_blocks = most * config.max_live;
  }
  config.max_events = rng.Between(200, 3000);
  const auto set = [&](Event event, std::int32_t most) {
    // A kind that never happens, in a quarter of the episodes.
    config.weight[static_cast<std::size_t>(event)] =
        rng.Percent(25) ? 0 : static_cast<std::uint32_t>(rng.Between(1, most));
  };
  set(Event::kCancel, 60);
  set(Event::kDisconnect, 30);
  set(Event::kStall, 60);
  set(Event::kTick, 60);
  set(Event::kSpoil, 10);
  if (rng.Percent(30)) set(Event::kFlush, 20);
  if (rng.Percent(10)) set(Event::kFailLaunch, 2);
  if (rng.Percent(10)) set(Event::kFailAwait, 2);
  if (rng.Percent(10)) set(Event::kOutOfMemory, 2);
  if (rng.Percent(30)) set(Event::kDrain, 2);
  return config;
}

}  // namespace millrace::sim
