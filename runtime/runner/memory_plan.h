// How the memory of the machine is shared out: weights first, then scratch, then the KV cache. A
// pure function, so that every case can be tested. Thread-safe.
#ifndef MILLRACE_RUNTIME_RUNNER_MEMORY_PLAN_H_
#define MILLRACE_RUNTIME_RUNNER_MEMORY_PLAN_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace millrace {

struct MemoryRequest {
  std::int64_t available_bytes = 0;  // before anything is loaded
  std::int64_t weight_bytes = 0;
  std::int64_t scratch_bytes = 0;
  std::int64_t kv_bytes_per_token = 0;
  std::int32_t block_size = 32;
  std::int64_t model_context = 0;   // trained
  std::int64_t context = 0;         // asked for; 0: auto
  std::int64_t kv_cache_bytes = 0;  // asked for; 0: auto
  std::int32_t max_num_seqs = 64;
  // Of what weights and scratch leave, how much an automatic cache takes.
  double cache_share = 0.8;
};

struct MemoryPlan {
  std::int32_t context = 0;  // positions of one sequence
  std::int32_t num_kv_blocks = 0;
  std::string line;  // what was decided and from what, for a person
};

// The KV cache holds max_num_seqs full contexts if memory has room, and never less than one. With
// context auto it is min(the model's, what memory holds). RESOURCE_EXHAUSTED with the numbers when
// an explicit context or cache does not fit, or when memory, not the model, puts an automatic one
// below 2 048; INVALID_ARGUMENT for a context beyond the model's.
absl::StatusOr<MemoryPlan> PlanMemory(const MemoryRequest& request);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_RUNNER_MEMORY_PLAN_H_
