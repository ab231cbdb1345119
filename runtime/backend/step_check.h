// What every backend asks of a step before it starts it: that it fits what was prepared. A step
// that does not is a mistake of ours. Thread-safe (pure).
#ifndef MILLRACE_RUNTIME_BACKEND_STEP_CHECK_H_
#define MILLRACE_RUNTIME_BACKEND_STEP_CHECK_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "runtime/backend/backend.h"

namespace millrace {

// INTERNAL with the numbers where sizes, contexts or blocks go beyond `limits`.
absl::Status CheckStep(const StepInput& input, const BackendLimits& limits);

// INVALID_ARGUMENT naming a token outside of [0, vocab).
absl::Status CheckTokens(std::span<const std::int32_t> token_ids, std::int32_t vocab);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_BACKEND_STEP_CHECK_H_
