// The Backend of a CUDA device: weights, KV cache and scratch in its memory, steps on one stream.
// The host runs one step ahead: Launch writes a step's tables into pinned memory and puts its
// kernels behind those of the step before, whose sampled tokens it may refer to; Await waits for an
// event.
//
// Threading as Backend's. All results are the CPU backend's, to the bit (docs/numerics.md), but for
// large steps where products by cuBLAS were asked for.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_CUDA_BACKEND_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_CUDA_BACKEND_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "runtime/backend/attention_plan.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cuda/completion_waiter.h"
#include "runtime/backend/cuda/device.h"
#include "runtime/backend/cuda/executor.h"
#include "runtime/backend/cuda/library_products.h"
#include "runtime/backend/cuda/resources.h"
#include "runtime/backend/cuda/step_buffers.h"
#include "runtime/backend/cuda/step_graphs.h"
#include "runtime/backend/cuda/step_shape.h"
#include "runtime/backend/cuda/step_tables.h"
#include "runtime/backend/cuda/weight_store.h"

namespace millrace::cuda {

struct CudaOptions {
  std::int32_t device = 0;
  int threads = 1;         // that read and lay out weights
  bool graphs = true;      // false: every kernel is launched by itself, for tests and profilers
  bool fused = true;       // false: what could end another kernel is one of its own, as above
  LibraryOptions library;  // products by cuBLAS, which give up the CPU's bits
  // After this a step hangs and the device is lost: many times what the largest step takes.
  Duration step_limit = std::chrono::seconds(60);
};

class CudaBackend final : public Backend {
 public:
  // As OpenDevice, and as Cublas::Open where the library is asked for.
  static absl::StatusOr<std::unique_ptr<CudaBackend>> Create(const CudaOptions& options);
  ~CudaBackend() override;

  std::string device() const override;
  std::string isa() const override;
  std::int32_t threads() const override { return options_.threads; }
  std::int32_t max_in_flight() const override { return kSlots; }
  bool batch_invariant() const override { return state_->library == nullptr; }
  absl::StatusOr<WeightId> LoadWeight(std::string_view name, DType dtype,
                                      std::span<const std::int64_t> shape,
                                      const ByteSource& source) override;
  std::int64_t AvailableBytes() const override;
  std::int64_t weight_bytes() const override { return state_->weights.bytes(); }
  std::int64_t ScratchBytes(const Program& program, const BackendLimits& limits) const override;
  absl::Status Prepare(const Program& program, const BackendLimits& limits) override;
  absl::StatusOr<StepTicket> Launch(const StepInput& input) override;
  absl::StatusOr<StepOutput> Await(StepTicket ticket) override;

 private:
  // A step that may be in flight: what its output is made from.
  struct Slot {
    StepTicket ticket;
    bool in_flight = false;
    Event done;
    PinnedMemory results;  // SampleResult [L], then rows of experts [layers, E]
    PinnedMemory logits;   // [L, V], made when a step first asks for them
    std::int32_t num_logits = 0;
    bool return_logits = false;
    std::vector<SampleRow> samples;  // what is needed of them afterwards
  };

  // All that is freed or waited for by asking the device.
  struct DeviceState {
    explicit DeviceState(const CudaOptions& options)
        : weights(options.device, options.threads), waiter(options.device) {}

    Stream stream;
    WeightStore weights;
    DeviceMemory kv;
    StepBuffers buffers;
    StepTables tables;
    std::unique_ptr<LibraryProducts> library;  // null: all products are exact
    std::unique_ptr<Executor> executor;
    std::unique_ptr<StepGraphs> graphs;
    std::array<Slot, kSlots> slots;
    CompletionWaiter waiter;
  };

  CudaBackend(const CudaOptions& options, DeviceFacts facts);

  // CUDA's current device is a thread's own, and a backend is loaded by one thread and driven by
  // another.
  absl::Status UseDevice() const;
  absl::Status CheckModel(const ProgramDims& dims, const BackendLimits& limits) const;
  absl::Status FillAngles();
  absl::Status CheckDeferred(const StepInput& input) const;
  absl::Status PutStep(const StepInput& input, Slot* slot, int index);
  absl::Status PutKernels(const StepShape& shape, int index);
  absl::Status PutCopies(const StepInput& input, Slot* slot, int index);
  std::int64_t result_bytes() const;
  std::int64_t expert_rows_bytes() const;
  MoeStepStats Statistics(const Slot& slot) const;

  const CudaOptions options_;
  const DeviceFacts facts_;
  Program program_;
  BackendLimits limits_;
  AttentionPlan attention_plan_;
  // Left to the end of the process where a step hangs: freeing would wait for it.
  std::unique_ptr<DeviceState> state_;
  bool hung_ = false;
  StepTicket last_ticket_;  // launched last
  StepTicket next_awaited_{1};
};

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_CUDA_BACKEND_H_
