// The model runner of this machine: a prepared backend behind the contract that the scheduler sees.
// Driven by the engine thread; owns the backend.
#ifndef MILLRACE_RUNTIME_RUNNER_LOCAL_MODEL_RUNNER_H_
#define MILLRACE_RUNTIME_RUNNER_LOCAL_MODEL_RUNNER_H_

#include <memory>
#include <vector>

#include "runtime/backend/backend.h"
#include "runtime/step/model_runner.h"

namespace millrace {

class LocalModelRunner final : public ModelRunner {
 public:
  // REQUIRES: `backend` is prepared for what `info` says.
  LocalModelRunner(std::unique_ptr<Backend> backend, RunnerInfo info);

  const RunnerInfo& info() const override { return info_; }
  absl::StatusOr<StepTicket> Launch(const ForwardBatch& batch) override;
  absl::StatusOr<ForwardResult> Await(StepTicket ticket) override;

 private:
  const std::unique_ptr<Backend> backend_;
  const RunnerInfo info_;
  // Views of the batch that is launched, kept to reuse their memory.
  std::vector<SampleRow> samples_;
  std::vector<DeferredToken> deferred_;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_RUNNER_LOCAL_MODEL_RUNNER_H_
