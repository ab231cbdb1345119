// Whether a request may join: a pure function of a snapshot, so that it answers in microseconds on
// the caller's thread whatever a step takes. Thread-safe.
#ifndef MILLRACE_SCHEDULER_ADMISSION_H_
#define MILLRACE_SCHEDULER_ADMISSION_H_

#include <cstdint>

#include "absl/status/status.h"
#include "runtime/step/model_runner.h"
#include "scheduler/engine.h"
#include "scheduler/queue_view.h"

namespace millrace {

// How long a request that came now would wait for its first token, from the rates that were
// measured: for a place and its own prompt, or for all prompts before it, whatever takes longer.
// Zero while nothing was measured.
Duration PredictFirstToken(const Request& request, const LoadSnapshot& snapshot,
                           const QueueView& queue, const SchedulerOptions& options);

// INVALID_ARGUMENT when the request can never run, UNAVAILABLE while draining or after a fault,
// RESOURCE_EXHAUSTED, with a hint when to come again, when the queue is full in sequences or in
// prompt tokens and the tenant has its share of it, or when the first token and the min_new_tokens
// after it would come after the deadline. Where nothing runs or waits, and nothing did for
// CostModel::kKeeps, they are judged by the lowest prices that there ever were,
// and those fade (CostModel::Age).
// `queue` is all that waits, also what was accepted since the snapshot.
absl::Status Admit(const Request& request, const LoadSnapshot& snapshot, const QueueView& queue,
                   const SchedulerOptions& options, const RunnerInfo& runner);

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_ADMISSION_H_
