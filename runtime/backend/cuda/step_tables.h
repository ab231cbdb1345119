// What the host tells the device about a step: tokens, positions, places in the KV cache, blocks,
// the attention's units, rows to sample. Written into pinned memory, one set for each step that may
// be in flight, and copied to one place in device memory, which is the same in every step, so that
// captured graphs find it there.
//
// Driven by the engine thread; owns its memory.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_STEP_TABLES_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_STEP_TABLES_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/sample_rows.h"
#include "kernels/cuda/sampling.h"
#include "runtime/backend/attention_plan.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cuda/resources.h"

namespace millrace::cuda {

// Steps that may be launched before the oldest is awaited: the host runs one ahead.
inline constexpr int kSlots = 2;

// Pointers into one set of tables, all of the device or all of the host.
struct TablePointers {
  // Parts of a fixed size, in one copy.
  std::int32_t* num_tokens = nullptr;     // [1]
  std::int32_t* num_logits = nullptr;     // [1]
  std::int32_t* token_ids = nullptr;      // [T]
  std::int32_t* positions = nullptr;      // [T]
  std::int32_t* kv_slots = nullptr;       // [T] block * block_size + position % block_size
  std::int32_t* partial_start = nullptr;  // [T] kernels/cuda/attention.h
  std::int32_t* logit_rows = nullptr;     // [L]
  // Tokens that the step before samples.
  std::int32_t* num_taken = nullptr;          // [1]
  TakenToken* taken = nullptr;                // [T]
  std::int32_t* block_table_start = nullptr;  // [S + 1]
  std::int32_t* wave_units = nullptr;         // [waves] units of each wave
  std::int32_t* wave_tokens_end = nullptr;    // [waves]
  // Parts of which a step copies what it uses.
  std::int32_t* block_table = nullptr;  // [max_blocks]
  AttentionUnit* units = nullptr;       // [max_units]
  std::int32_t* queries = nullptr;      // [max_queries]
  std::byte* samples = nullptr;         // PackSampleRows; memory of its own
};

class StepTables {
 public:
  // `max_partials` is what AttentionPlan::Build is called with.
  static absl::StatusOr<StepTables> Allocate(const ProgramDims& dims, const BackendLimits& limits,
                                             std::int64_t max_partials);
  // Device bytes that Allocate takes.
  static std::int64_t Bytes(const BackendLimits& limits, std::int64_t max_partials);

  // Fills the tables of `slot` and puts their copies on the stream. Where the rows to sample bring
  // longer lists than any before, it waits for the stream and takes more memory: rare, and then
  // moved() is true until the next Write. REQUIRES: what the slot's last step copied is there; the
  // input is valid; `plan` was built from it.
  absl::Status Write(int slot, const StepInput& input, const AttentionPlan& plan,
                     cudaStream_t stream);

  const TablePointers& device() const { return device_; }
  // Of the step that was written last: what its sampling asks for, and whether the table of samples
  // lies elsewhere than before, so that graphs that read it are void.
  const SampleShape& sample_shape() const { return sample_shape_; }
  bool moved() const { return moved_; }

 private:
  // Sizes of the parts, in entries.
  struct Sizes {
    std::int64_t tokens, sequences, logits, blocks, units, queries, waves;
  };
  static Sizes SizesFor(const BackendLimits& limits, std::int64_t max_partials);
  static TablePointers Carve(const Sizes& sizes, std::byte* base, std::int64_t* fixed_bytes,
                             std::int64_t* all_bytes);

  absl::Status ReserveSamples(std::int64_t bytes, cudaStream_t stream);
  void Fill(const StepInput& input, const AttentionPlan& plan, const TablePointers& to) const;

  ProgramDims dims_;
  BackendLimits limits_;
  std::int64_t fixed_bytes_ = 0;
  DeviceMemory device_memory_;
  TablePointers device_;
  std::vector<PinnedMemory> pinned_;  // [kSlots]
  std::vector<TablePointers> host_;   // [kSlots]
  DeviceMemory device_samples_;
  std::vector<PinnedMemory> pinned_samples_;  // [kSlots]
  bool moved_ = false;
  SampleShape sample_shape_;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_STEP_TABLES_H_
