// Whether a request may join: a pure function of a snapshot, so that it answers in microseconds on
// the caller's thread whatever a step takes. Thread-safe.
#ifndef MILLRACE_SCHEDULER_ADMISSION_H_
#define MILLRACE_SCHEDULER_ADMISSION_H_

#include <cstdint>

#include "absl/status/status.h"
#include "runtime/step/model_runner.h"
#include "scheduler/engine.h"

namespace millrace {

// Who waits beside the request that is judged.
struct TenantQueue {
  std::int32_t tenants = 0;  // with sequences in the queue, this request's own counted in any case
  std::int32_t own = 0;      // sequences of this request's tenant
  std::int64_t own_prompt_tokens = 0;
};

// What the engine has accepted and its snapshot does not show yet.
struct Unseen {
  std::int32_t sequences = 0;
  std::int64_t prompt_tokens = 0;
};

// How long a request that came now would wait for its first token, from the rates that were
// measured: for a place, or for the prompts before it, whatever takes longer, and for its own
// prompt. Zero while nothing was measured.
Duration PredictFirstToken(const Request& request, const LoadSnapshot& snapshot,
                           const Unseen& unseen, const SchedulerOptions& options);

// INVALID_ARGUMENT when the request can never run, UNAVAILABLE while draining or after a fault,
// RESOURCE_EXHAUSTED, with a hint when to come again, when the queue is full in sequences or in
// prompt tokens and the tenant has its share of it, or when the first token and the min_new_tokens
// after it would come after the deadline.
absl::Status Admit(const Request& request, const LoadSnapshot& snapshot, const Unseen& unseen,
                   const TenantQueue& tenant, const SchedulerOptions& options,
                   const RunnerInfo& runner);

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_ADMISSION_H_
