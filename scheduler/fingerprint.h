// What a step plan and the events of a commit say, as one number: equal ones are taken to be the
// same when a trace is replayed. FNV-1a of 64 bits. Pure functions.
#ifndef MILLRACE_SCHEDULER_FINGERPRINT_H_
#define MILLRACE_SCHEDULER_FINGERPRINT_H_

#include <cstdint>
#include <vector>

#include "scheduler/step_plan.h"
#include "scheduler/token_event.h"

namespace millrace {

// Who computes what, from which tokens, in which blocks.
std::uint64_t Fingerprint(const StepPlan& plan);
// Tokens, text and ends, but for times and logprobs.
std::uint64_t Fingerprint(const std::vector<TokenEvent>& events);

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_FINGERPRINT_H_
