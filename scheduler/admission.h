// Whether a request may join: a pure function of a snapshot, so that it answers in microseconds on
// the caller's thread whatever a step takes. Thread-safe.
#ifndef MILLRACE_SCHEDULER_ADMISSION_H_
#define MILLRACE_SCHEDULER_ADMISSION_H_

#include <cstdint>

#include "absl/status/status.h"
#include "runtime/step/model_runner.h"
#include "scheduler/engine.h"

namespace millrace {

// What the engine has accepted and its snapshot does not show yet.
struct Unseen {
  std::int32_t requests = 0;
  std::int64_t prompt_tokens = 0;
};

// INVALID_ARGUMENT when the request can never run, UNAVAILABLE while draining or after a fault,
// RESOURCE_EXHAUSTED when the queue is full in requests or in prompt tokens.
absl::Status Admit(const Request& request, const LoadSnapshot& snapshot, const Unseen& unseen,
                   const SchedulerOptions& options, const RunnerInfo& runner);

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_ADMISSION_H_
