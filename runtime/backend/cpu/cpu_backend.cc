#include "runtime/backend/cpu/cpu_backend.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace millrace::cpu {

CpuBackend::CpuBackend(int threads, Isa isa, std::unique_ptr<WeightCache> cache)
    : isa_(isa), pool_(threads), weights_(isa, std::move(cache)) {}

absl::StatusOr<WeightId> CpuBackend::LoadWeight(std::string_view name, DType dtype,
                                                std::span<const std::int64_t> shape,
                                                const ByteSource& source) {
  return weights_.Load(name, dtype, shape, source);
}

std::int64_t CpuBackend::ScratchBytes(const Program& program, const BackendLimits& limits) const {
  return StepBuffers::Bytes(program.dims, limits);
}

absl::Status CpuBackend::Prepare(const Program& program, const BackendLimits& limits) {
  MILLRACE_CHECK(executor_ == nullptr, "a backend is prepared once");
  weights_.FinishLoading();
  program_ = program;
  limits_ = limits;
  MILLRACE_ASSIGN_OR_RETURN(
      kv_, HugeBuffer::Allocate(limits.kv.block_bytes() * limits.num_kv_blocks, "KV cache"));
  MILLRACE_ASSIGN_OR_RETURN(buffers_, StepBuffers::Allocate(program.dims, limits));
  executor_ = std::make_unique<Executor>(isa_, program_.dims, limits_, &weights_, &buffers_,
                                         kv_.data(), &pool_);
  token_ids_.reserve(static_cast<std::size_t>(limits.max_tokens));
  return absl::OkStatus();
}

absl::Status CpuBackend::CheckInput(const StepInput& input) const {
  const auto tokens = static_cast<std::int64_t>(input.token_ids.size());
  const auto sequences = static_cast<std::int64_t>(input.context_len.size());
  const auto rows = static_cast<std::int64_t>(input.logit_rows.size());
  if (tokens < 1 || tokens > limits_.max_tokens || sequences > limits_.max_seqs ||
      rows > limits_.max_logit_rows) {
    return absl::InternalError(absl::StrCat("a step of ", tokens, " tokens, ", sequences,
                                            " sequences and ", rows, " logit rows; prepared for ",
                                            limits_.max_tokens, ", ", limits_.max_seqs, " and ",
                                            limits_.max_logit_rows));
  }
  for (std::int64_t s = 0; s < sequences; ++s) {
    const auto i = static_cast<std::size_t>(s);
    const std::int64_t blocks = input.block_table_start[i + 1] - input.block_table_start[i];
    if (input.context_len[i] < 1 || input.context_len[i] > limits_.max_context ||
        input.context_len[i] > blocks * limits_.kv.block_size) {
      return absl::InternalError(absl::StrCat("sequence ", s, ": context ", input.context_len[i],
                                              " in ", blocks, " blocks of ",
                                              limits_.kv.block_size));
    }
  }
  for (const std::int32_t block : input.block_table) {
    if (block < 0 || block >= limits_.num_kv_blocks) {
      return absl::InternalError(absl::StrCat("KV block ", block, " of ", limits_.num_kv_blocks));
    }
  }
  return absl::OkStatus();
}

absl::Status CpuBackend::ResolveTokens(const StepInput& input) {
  token_ids_.assign(input.token_ids.begin(), input.token_ids.end());
  for (const DeferredToken& deferred : input.deferred) {
    const auto row = static_cast<std::size_t>(deferred.row);
    if (deferred.ticket != last_ticket_ || row >= last_sampled_.size()) {
      return absl::InternalError(absl::StrCat("a token of step ", deferred.ticket.value(), ", row ",
                                              deferred.row, ", which is not the newest step"));
    }
    token_ids_[static_cast<std::size_t>(deferred.token_index)] = last_sampled_[row];
  }
  for (const std::int32_t id : token_ids_) {
    if (id < 0 || id >= program_.dims.vocab) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", id, " outside of the vocabulary of ", program_.dims.vocab));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<StepTicket> CpuBackend::Launch(const StepInput& input) {
  MILLRACE_CHECK(executor_ != nullptr, "Launch before Prepare");
  MILLRACE_CHECK(!finished_.has_value(), "one step in flight at a time");
  MILLRACE_RETURN_IF_ERROR(CheckInput(input));
  MILLRACE_RETURN_IF_ERROR(ResolveTokens(input));
  StepOutput output;
  executor_->Run(program_, input, token_ids_, &output);
  last_sampled_.clear();
  for (const SampledToken& token : output.sampled)
    last_sampled_.push_back(static_cast<std::int32_t>(token.token));
  finished_ = std::move(output);
  last_ticket_ = StepTicket(last_ticket_.value() + 1);
  return last_ticket_;
}

absl::StatusOr<StepOutput> CpuBackend::Await(StepTicket ticket) {
  MILLRACE_CHECK(finished_.has_value() && ticket == last_ticket_,
                 "tickets are awaited in order, once");
  StepOutput output = std::move(*finished_);
  finished_.reset();
  return output;
}

}  // namespace millrace::cpu
