// What the scheduler asks of a model for one step, and what comes back: values only, so that a
// scheduler can be driven by a fake as well as by a device. Lives below the scheduler; the runner
// never sees it.
#ifndef MILLRACE_RUNTIME_STEP_FORWARD_BATCH_H_
#define MILLRACE_RUNTIME_STEP_FORWARD_BATCH_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "base/strong_id.h"
#include "runtime/sampling/sampling_params.h"

namespace millrace {

// token_ids[token_index] is whatever row `row` of step `ticket` samples: lets the host run one step
// ahead.
struct TokenFromStep {
  std::int32_t token_index = 0;
  StepTicket ticket;
  std::int32_t row = 0;
};

// How one row of logits is sampled. Vectors that a request does not use are empty.
struct RowSampling {
  SamplerParams params;
  std::uint32_t index = 0;     // which of the request's sequences
  std::uint32_t position = 0;  // tokens generated before this one
  std::int32_t num_logprobs = -1;
  std::vector<SeenToken> seen;
  std::vector<std::pair<std::uint32_t, float>> logit_bias;
  std::vector<std::uint32_t> allowed;
  std::vector<std::uint32_t> banned;
};

// Ragged, CSR. Sequence s owns tokens query_start[s] .. query_start[s+1] - 1, which are the last of
// its context_len[s] positions, and blocks block_table[block_table_start[s] ..
// block_table_start[s+1] - 1].
struct ForwardBatch {
  std::vector<std::int32_t> token_ids;          // [num_tokens]
  std::vector<std::int32_t> positions;          // [num_tokens]
  std::vector<std::int32_t> query_start;        // [num_seqs + 1]
  std::vector<std::int32_t> context_len;        // [num_seqs]
  std::vector<std::int32_t> block_table;        // [sum of blocks]
  std::vector<std::int32_t> block_table_start;  // [num_seqs + 1]
  std::vector<std::int32_t> logit_rows;  // [num_logits] token indexes: only these pay the head
  std::vector<RowSampling> sampling;     // [num_logits], or empty: no sampling
  std::vector<TokenFromStep> deferred;
  bool return_logits = false;

  std::int32_t num_tokens() const { return static_cast<std::int32_t>(token_ids.size()); }
  std::int32_t num_seqs() const { return static_cast<std::int32_t>(context_len.size()); }
};

struct MoeStats {
  std::vector<std::int32_t> active_experts;   // [num_layers]
  std::vector<std::int32_t> rows_per_expert;  // one entry for each active expert of each layer
};

struct ForwardResult {
  StepTicket ticket;
  std::vector<SampledToken> sampled;  // [num_logits]
  std::vector<float> logits;          // [num_logits, vocab] if return_logits
  MoeStats moe;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_STEP_FORWARD_BATCH_H_
