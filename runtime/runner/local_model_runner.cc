#include "runtime/runner/local_model_runner.h"

#include <utility>

#include "base/status.h"

namespace millrace {
namespace {

SampleRow ViewOf(const RowSampling& sampling) {
  SampleRow row;
  row.params = sampling.params;
  row.index = sampling.index;
  row.position = sampling.position;
  row.seen = sampling.seen;
  row.logit_bias = sampling.logit_bias;
  row.allowed = sampling.allowed;
  row.banned = sampling.banned;
  row.num_logprobs = sampling.num_logprobs;
  return row;
}

}  // namespace

LocalModelRunner::LocalModelRunner(std::unique_ptr<Backend> backend, RunnerInfo info)
    : backend_(std::move(backend)), info_(info) {}

absl::StatusOr<StepTicket> LocalModelRunner::Launch(const ForwardBatch& batch) {
  samples_.clear();
  for (const RowSampling& sampling : batch.sampling) samples_.push_back(ViewOf(sampling));
  deferred_.clear();
  for (const TokenFromStep& token : batch.deferred)
    deferred_.push_back({token.token_index, token.ticket, token.row});
  StepInput input;
  input.token_ids = batch.token_ids;
  input.positions = batch.positions;
  input.query_start = batch.query_start;
  input.context_len = batch.context_len;
  input.block_table = batch.block_table;
  input.block_table_start = batch.block_table_start;
  input.logit_rows = batch.logit_rows;
  input.samples = samples_;
  input.deferred = deferred_;
  input.return_logits = batch.return_logits;
  return backend_->Launch(input);
}

absl::StatusOr<ForwardResult> LocalModelRunner::Await(StepTicket ticket) {
  MILLRACE_ASSIGN_OR_RETURN(StepOutput output, backend_->Await(ticket));
  ForwardResult result;
  result.ticket = ticket;
  result.sampled = std::move(output.sampled);
  result.logits = std::move(output.logits);
  result.moe = {std::move(output.moe.active_experts), std::move(output.moe.rows_per_expert)};
  return result;
}

}  // namespace millrace
