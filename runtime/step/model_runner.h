// The contract between the scheduler and a model: launch a batch, await its result. Implemented by
// LocalModelRunner (runtime/runner) and by fakes in tests. Driven by one thread, the engine's.
#ifndef MILLRACE_RUNTIME_STEP_MODEL_RUNNER_H_
#define MILLRACE_RUNTIME_STEP_MODEL_RUNNER_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "base/strong_id.h"
#include "runtime/step/forward_batch.h"

namespace millrace {

// Fixed facts of a loaded model that the scheduler plans with.
struct RunnerInfo {
  std::int32_t vocab = 0;        // rows of the head
  std::int32_t max_context = 0;  // positions of one sequence
  std::int32_t block_size = 32;  // positions in a KV block
  std::int32_t num_kv_blocks = 0;
  std::int32_t max_step_tokens = 0;
  std::int32_t max_step_seqs = 0;
  std::int32_t max_in_flight = 1;  // steps launched and not yet awaited
  bool moe = false;                // which path forward tokens are counted under
};

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;
  virtual const RunnerInfo& info() const = 0;
  // Starts one step. An error means the device is lost: nothing was started and nothing will be.
  virtual absl::StatusOr<StepTicket> Launch(const ForwardBatch& batch) = 0;
  // Blocks until the step is done; tickets are awaited in the order of Launch, each exactly once.
  virtual absl::StatusOr<ForwardResult> Await(StepTicket ticket) = 0;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_STEP_MODEL_RUNNER_H_
