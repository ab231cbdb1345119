// The CPU backend: weights in huge pages, kernels of one level chosen at start, a pool of workers
// of which the engine thread is the first. A step runs inside Launch; Await hands out its result.
//
// Driven by one thread. Results do not depend on batch, chunking, threads or level
// (docs/numerics.md).
#ifndef MILLRACE_RUNTIME_BACKEND_CPU_CPU_BACKEND_H_
#define MILLRACE_RUNTIME_BACKEND_CPU_CPU_BACKEND_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/cpu/isa.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cpu/executor.h"
#include "runtime/backend/cpu/huge_buffer.h"
#include "runtime/backend/cpu/step_buffers.h"
#include "runtime/backend/cpu/weight_cache.h"
#include "runtime/backend/cpu/weight_store.h"

namespace millrace::cpu {

class CpuBackend final : public Backend {
 public:
  // REQUIRES: threads >= 1, this machine supports `isa`. `cache` may be null.
  CpuBackend(int threads, Isa isa, std::unique_ptr<WeightCache> cache);

  std::string device() const override { return "cpu"; }
  std::string isa() const override { return std::string(IsaName(isa_)); }
  std::int32_t threads() const override { return pool_.threads(); }
  std::int32_t max_in_flight() const override { return 1; }
  bool batch_invariant() const override { return true; }
  absl::StatusOr<WeightId> LoadWeight(std::string_view name, DType dtype,
                                      std::span<const std::int64_t> shape,
                                      const ByteSource& source) override;
  std::int64_t AvailableBytes() const override;
  std::int64_t weight_bytes() const override { return weights_.bytes(); }
  std::int64_t ScratchBytes(const Program& program, const BackendLimits& limits) const override;
  absl::Status Prepare(const Program& program, const BackendLimits& limits) override;
  absl::StatusOr<StepTicket> Launch(const StepInput& input) override;
  absl::StatusOr<StepOutput> Await(StepTicket ticket) override;

 private:
  // token_ids with those that an earlier step sampled put in.
  absl::Status ResolveTokens(const StepInput& input);

  const Isa isa_;
  ThreadPool pool_;
  WeightStore weights_;
  Program program_;
  BackendLimits limits_;
  HugeBuffer kv_;
  StepBuffers buffers_;
  std::unique_ptr<Executor> executor_;

  StepTicket last_ticket_;
  std::optional<StepOutput> finished_;      // of last_ticket_, until it is awaited
  std::vector<std::int32_t> last_sampled_;  // what DeferredToken may refer to
  std::vector<std::int32_t> token_ids_;
};

}  // namespace millrace::cpu

#endif  // MILLRACE_RUNTIME_BACKEND_CPU_CPU_BACKEND_H_
