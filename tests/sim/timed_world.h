// The serving scheduler on a simulated clock, with a device whose steps cost a fixed time,
// something for every token, and up to 15 % more or less. Driven by one thread.
#ifndef MILLRACE_TESTS_SIM_TIMED_WORLD_H_
#define MILLRACE_TESTS_SIM_TIMED_WORLD_H_

#include <cstdint>

#include "scheduler/admission.h"
#include "scheduler/scheduler.h"
#include "tests/sim/hash_device.h"
#include "tests/sim/rng.h"

namespace millrace::sim {

struct StepTimes {
  Duration step;           // without a token
  Duration decode_token;   // of a stream
  Duration prefill_token;  // of a prompt
};

class TimedWorld {
 public:
  TimedWorld(const StepTimes& times, Duration itl_target, std::int32_t kv_blocks = 20'000);
  virtual ~TimedWorld() = default;

  Request MakeRequest(std::int32_t prompt, std::uint32_t output);
  RequestId Submit(Request request);
  RequestId Submit(std::int32_t prompt, std::uint32_t output) {
    return Submit(MakeRequest(prompt, output));
  }
  // Launches a step and waits for it. Nothing happens where none can run; the plan is empty then.
  StepPlan Step();
  void AdvanceTo(TimePoint at) { now_ = std::max(now_, at); }

  const Scheduler& scheduler() const { return scheduler_; }
  const SchedulerOptions& options() const { return options_; }
  TimePoint now() const { return now_; }
  Rng& rng() { return rng_; }

 protected:
  virtual void OnTokens(RequestId id) = 0;
  virtual void OnFinished(RequestId id, const RequestUsage& usage) {}

 private:
  const StepTimes times_;
  const SchedulerOptions options_;
  const RunnerInfo runner_;
  HashDevice device_;
  Scheduler scheduler_;
  Rng rng_{7};
  TimePoint now_{std::chrono::seconds(1)};
  std::uint64_t submitted_ = 0;
};

}  // namespace millrace::sim

#endif  // MILLRACE_TESTS_SIM_TIMED_WORLD_H_
