// The measurements of `millrace capacity`, each a second or so: the runner alone, then a server in
// this process. Driven by one thread; the model outlives the call.
#ifndef MILLRACE_CLI_CAPACITY_MEASURE_H_
#define MILLRACE_CLI_CAPACITY_MEASURE_H_

#include "absl/status/statusor.h"
#include "cli/capacity_plan.h"
#include "runtime/runner/model_loader.h"

namespace millrace::cli {

// Fills prefill_tokens_per_second, decode and service_seconds_per_token; the other figures say how
// many and how long the sequences are. REQUIRES: one request of the mix fits.
absl::Status MeasureCapacity(LoadedModel* model, CapacityFigures* figures);

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_CAPACITY_MEASURE_H_
