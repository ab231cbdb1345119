// What the scheduler decided for one step: a value. The batch goes to the model runner; the rows
// say whose result is whose when it comes back.
#ifndef MILLRACE_SCHEDULER_STEP_PLAN_H_
#define MILLRACE_SCHEDULER_STEP_PLAN_H_

#include <cstdint>
#include <vector>

#include "base/strong_id.h"
#include "runtime/step/forward_batch.h"
#include "scheduler/kv_manager.h"

namespace millrace {

struct PlannedSequence {
  RequestId id;
  std::uint32_t index = 0;      // of the request's sequences
  std::int32_t num_tokens = 0;  // computed in this step
  std::int32_t logit_row = -1;  // row of the result that holds its next token; -1: none
  std::uint64_t admission = 0;  // the sequence's when it was planned: a later one has other blocks
};

struct StepPlan {
  ForwardBatch batch;
  std::vector<PlannedSequence> sequences;  // in the order of the batch
  std::int32_t prefill_tokens = 0;
  std::int32_t decode_tokens = 0;
  std::int32_t recomputed_tokens = 0;
  std::int32_t preemptions = 0;   // since the plan before
  PrefixCacheStats prefix_cache;  // since the plan before

  bool empty() const { return sequences.empty(); }
};

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_STEP_PLAN_H_
