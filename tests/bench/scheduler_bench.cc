// What the scheduler itself costs a step: Schedule, Launched and Commit without a device, with
// sequences that decode at 1 000 to 1 500 positions, requests of 64 tenants and three classes that
// wait, and a deadline on each. Arguments: sequences that run, that wait. Not part of the suite;
// the serving scheduler exports the same as millrace_step_seconds{phase="schedule"}.
#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/token_bytes.h"
#include "scheduler/scheduler.h"

namespace millrace {
namespace {

constexpr std::int32_t kBlock = 32;
constexpr std::uint32_t kTokens = 1'000'000;  // more than are generated: nobody ends

RunnerInfo Runner(std::int32_t running) {
  return {.vocab = 1000,
          .max_context = 2'000'000,
          .block_size = kBlock,
          .num_kv_blocks = running * 4096,
          .max_step_tokens = 100'000,
          .max_step_seqs = running,
          .max_in_flight = 1,
          .moe = true};
}

std::shared_ptr<const TokenBytes> OneByteEach() {
  return std::make_shared<TokenBytes>(std::vector<std::string>(1000, "x"),
                                      std::vector<bool>(1000, false));
}

class World {
 public:
  World(std::int32_t running, std::int32_t waiting)
      : options_{.max_num_seqs = running,
                 .max_num_batched_tokens = 100'000,
                 .max_queue = waiting,
                 .max_queue_tokens = std::int64_t{1} << 40,
                 .output_window_tokens = 1 << 30},
        scheduler_(options_, Runner(running), OneByteEach()) {
    for (std::int32_t i = 0; i < running; ++i) Submit();
    while (scheduler_.num_running() < running) Step();
    for (std::int32_t i = 0; i < waiting; ++i) Submit();
  }

  void Step() {
    StepPlan plan = scheduler_.Schedule(now_);
    const StepTicket ticket(++steps_);
    scheduler_.Launched(plan, ticket);
    ForwardResult result{.ticket = ticket};
    result.sampled.resize(plan.batch.logit_rows.size(), SampledToken{.token = 7});
    now_ += std::chrono::milliseconds(20);
    scheduler_.Commit(plan, result, std::chrono::milliseconds(20), now_);
    benchmark::DoNotOptimize(scheduler_.TakeEvents());
  }

 private:
  void Submit() {
    Request request;
    request.id = RequestId(++submitted_);
    const std::size_t length = 1000 + rng_() % 500;
    for (std::size_t i = 0; i < length; ++i) request.prompt_tokens.push_back(rng_() % 1000);
    request.stopping.max_new_tokens = kTokens;
    request.tenant = std::to_string(submitted_ % 64);
    request.priority = static_cast<std::int32_t>(submitted_ % 3);
    request.arrival = now_;
    request.deadline = now_ + std::chrono::hours(10'000);
    scheduler_.Submit(std::move(request), now_);
  }

  const SchedulerOptions options_;
  Scheduler scheduler_;
  std::mt19937 rng_{7};
  TimePoint now_{std::chrono::seconds(1)};
  std::uint64_t steps_ = 0;
  std::uint64_t submitted_ = 0;
};

void SchedulerStep(benchmark::State& state) {
  World world(static_cast<std::int32_t>(state.range(0)), static_cast<std::int32_t>(state.range(1)));
  for (auto _ : state) world.Step();
}
BENCHMARK(SchedulerStep)
    ->Unit(benchmark::kMicrosecond)
    ->Iterations(500)  // they grow by so many positions
    ->Repetitions(5)
    ->ReportAggregatesOnly()
    ->Args({1, 0})
    ->Args({64, 0})
    ->Args({256, 0})
    ->Args({256, 256});

}  // namespace
}  // namespace millrace

BENCHMARK_MAIN();
