// A Backend owns a device: the weights in its own layout, the bytes of the KV cache, scratch, and
// the execution of one Program. It knows nothing of models, sequences or requests.
//
// Threading: one thread drives a backend (the engine thread); a backend may have workers of its
// own. Life: Create -> LoadWeight... -> Prepare -> (Launch, Await)...
#ifndef MILLRACE_RUNTIME_BACKEND_BACKEND_H_
#define MILLRACE_RUNTIME_BACKEND_BACKEND_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/byte_source.h"
#include "base/strong_id.h"
#include "kernels/dtype.h"
#include "kernels/paged_kv.h"
#include "kernels/sampling.h"
#include "runtime/backend/program.h"

namespace millrace {

// A token whose id is sampled by row `row` of an earlier step that may still be in flight.
struct DeferredToken {
  std::int32_t token_index = 0;  // which entry of token_ids it stands for
  StepTicket ticket;
  std::int32_t row = 0;
};

// One ragged batch. Sequence s owns tokens query_start[s] .. query_start[s+1] - 1, the last of its
// context_len[s] positions; its blocks are block_table[block_table_start[s] ..).
// Spans must stay valid until Launch returns.
struct StepInput {
  std::span<const std::int32_t> token_ids;          // [num_tokens]
  std::span<const std::int32_t> positions;          // [num_tokens]
  std::span<const std::int32_t> query_start;        // [num_seqs + 1]
  std::span<const std::int32_t> context_len;        // [num_seqs], this step's tokens included
  std::span<const std::int32_t> block_table;        // [sum of blocks]
  std::span<const std::int32_t> block_table_start;  // [num_seqs + 1]
  std::span<const std::int32_t> logit_rows;         // [num_logits] token indexes, ascending
  std::span<const SampleRow> samples;               // [num_logits], or empty: no sampling
  std::span<const DeferredToken> deferred;
  bool return_logits = false;  // copy the logits out as well
};

// What the routers of a step did, for metrics; summed over layers. Empty for dense models.
struct MoeStepStats {
  std::vector<std::int32_t> active_experts;   // [num_layers] experts with at least one row
  std::vector<std::int32_t> rows_per_expert;  // one entry for each active expert of each layer
};

struct StepOutput {
  std::vector<SampledToken> sampled;  // [num_logits] if samples were given
  std::vector<float> logits;          // [num_logits, vocab] if return_logits
  MoeStepStats moe;
};

// What Prepare reserves for; nothing grows in a step.
struct BackendLimits {
  std::int32_t max_tokens = 512;  // of a step
  std::int32_t max_seqs = 64;
  std::int32_t max_logit_rows = 64;
  std::int32_t max_context = 0;
  std::int32_t num_kv_blocks = 0;
  KvLayout kv;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // "cpu" or "cuda:0"; the kernel level in use ("avx512", "sm_90").
  virtual std::string device() const = 0;
  virtual std::string isa() const = 0;
  virtual std::int32_t threads() const = 0;
  // Steps that may be launched before the oldest is awaited: 1 on the CPU.
  virtual std::int32_t max_in_flight() const = 0;
  // True when a row's result does not depend on its neighbours, to the bit.
  virtual bool batch_invariant() const = 0;

  // Takes one tensor, reading it from `source` straight into its final layout: the only copy.
  // `shape` is outermost first, rows last: [n, k] or [experts, n, k]. Fails with UNIMPLEMENTED or
  // INVALID_ARGUMENT naming the tensor; RESOURCE_EXHAUSTED with the numbers when memory is short.
  virtual absl::StatusOr<WeightId> LoadWeight(std::string_view name, DType dtype,
                                              std::span<const std::int64_t> shape,
                                              const ByteSource& source) = 0;

  // Bytes of the memory that weights, scratch and KV cache take theirs from, as many as are left
  // now.
  virtual std::int64_t AvailableBytes() const = 0;
  // Bytes that weights take so far, and that Prepare would allocate for `limits` beside the KV
  // cache.
  virtual std::int64_t weight_bytes() const = 0;
  virtual std::int64_t ScratchBytes(const Program& program, const BackendLimits& limits) const = 0;

  // Allocates the KV cache and scratch and plans the execution. REQUIRES: called once.
  virtual absl::Status Prepare(const Program& program, const BackendLimits& limits) = 0;

  // Starts one step; on the CPU it also runs here. Fails without side effects when the device
  // cannot.
  virtual absl::StatusOr<StepTicket> Launch(const StepInput& input) = 0;
  // Blocks until the step is done. Tickets are awaited in the order of Launch, each once.
  virtual absl::StatusOr<StepOutput> Await(StepTicket ticket) = 0;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_BACKEND_BACKEND_H_
