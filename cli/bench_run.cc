#include "cli/bench_run.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace millrace::cli {
namespace {

ForwardBatch Empty() {
  ForwardBatch batch;
  batch.query_start = {0};
  batch.block_table_start = {0};
  return batch;
}

}  // namespace

BenchRun::BenchRun(ModelRunner* runner, std::int32_t sequences, BenchTokens tokens,
                   std::int32_t shared)
    : runner_(runner),
      tokens_(tokens),
      shared_blocks_(shared / runner->info().block_size),
      blocks_each_(runner->info().num_kv_blocks / sequences),
      sampled_(static_cast<std::size_t>(sequences)) {}

absl::Status BenchRun::Prefill(std::int32_t s, std::int32_t begin, std::int32_t end) {
  for (std::int32_t at = begin; at < end;) {
    const std::int32_t count = std::min(end - at, runner_->info().max_step_tokens);
    ForwardBatch batch = Empty();
    Add(s, at, count, at + count == end, &batch);
    MILLRACE_RETURN_IF_ERROR(Put(batch));
    at += count;
  }
  MILLRACE_RETURN_IF_ERROR(Finish());
  if (!newest_.sampled.empty()) {
    sampled_[static_cast<std::size_t>(s)] = static_cast<std::int32_t>(newest_.sampled[0].token);
  }
  return absl::OkStatus();
}

absl::Status BenchRun::Decode(std::int32_t sequences, std::int32_t position) {
  ForwardBatch batch = Empty();
  for (std::int32_t s = 0; s < sequences; ++s) Add(s, position, 1, true, &batch);
  MILLRACE_RETURN_IF_ERROR(Put(batch));
  if (tokens_ != BenchTokens::kSampled) return absl::OkStatus();
  MILLRACE_RETURN_IF_ERROR(Finish());
  for (std::size_t s = 0; s < newest_.sampled.size(); ++s) {
    sampled_[s] = static_cast<std::int32_t>(newest_.sampled[s].token);
  }
  return absl::OkStatus();
}

std::int32_t BenchRun::NextToken(std::int32_t s, std::int32_t count) {
  if (tokens_ == BenchTokens::kSame) return 0;
  if (tokens_ == BenchTokens::kSampled && count == 1) return sampled_[static_cast<std::size_t>(s)];
  return std::uniform_int_distribution<std::int32_t>(0, runner_->info().vocab - 1)(rng_);
}

void BenchRun::Add(std::int32_t s, std::int32_t begin, std::int32_t count, bool logits,
                   ForwardBatch* batch) {
  for (std::int32_t i = 0; i < count; ++i) {
    batch->token_ids.push_back(NextToken(s, count));
    batch->positions.push_back(begin + i);
  }
  batch->query_start.push_back(batch->num_tokens());
  batch->context_len.push_back(begin + count);
  const std::int32_t block_size = runner_->info().block_size;
  for (std::int32_t b = 0; b * block_size < begin + count; ++b)
    batch->block_table.push_back((b < shared_blocks_ ? 0 : s * blocks_each_) + b);
  batch->block_table_start.push_back(static_cast<std::int32_t>(batch->block_table.size()));
  if (!logits) return;
  batch->logit_rows.push_back(batch->num_tokens() - 1);
  RowSampling sampling;
  if (tokens_ != BenchTokens::kSampled) sampling.params.temperature = 0;
  // No two draws are the same.
  sampling.params.seed = static_cast<std::uint64_t>(s);
  sampling.position = static_cast<std::uint32_t>(begin + count);
  batch->sampling.push_back(std::move(sampling));
}

absl::Status BenchRun::AwaitOldest() {
  const StepTicket ticket = in_flight_.front();
  in_flight_.pop_front();
  MILLRACE_ASSIGN_OR_RETURN(newest_, runner_->Await(ticket));
  return absl::OkStatus();
}

absl::Status BenchRun::Finish() {
  while (!in_flight_.empty()) MILLRACE_RETURN_IF_ERROR(AwaitOldest());
  return absl::OkStatus();
}

absl::Status BenchRun::Put(const ForwardBatch& batch) {
  const auto most = static_cast<std::size_t>(runner_->info().max_in_flight);
  if (in_flight_.size() == most) MILLRACE_RETURN_IF_ERROR(AwaitOldest());
  MILLRACE_ASSIGN_OR_RETURN(const StepTicket ticket, runner_->Launch(batch));
  in_flight_.push_back(ticket);
  return absl::OkStatus();
}

}  // namespace millrace::cli
