#include "runtime/backend/cpu/cpu_backend.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/memory.h"
#include "base/status.h"
#include "runtime/backend/step_check.h"

namespace millrace::cpu {

CpuBackend::CpuBackend(int threads, Isa isa, std::unique_ptr<WeightCache> cache)
    : isa_(isa), pool_(threads), weights_(isa, std::move(cache)) {}

absl::StatusOr<WeightId> CpuBackend::LoadWeight(std::string_view name, DType dtype,
                                                std::span<const std::int64_t> shape,
                                                const ByteSource& source) {
  return weights_.Load(name, dtype, shape, source);
}

std::int64_t CpuBackend::AvailableBytes() const { return AvailableMemoryBytes(); }

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
  return CheckTokens(token_ids_, program_.dims.vocab);
}

absl::StatusOr<StepTicket> CpuBackend::Launch(const StepInput& input) {
  MILLRACE_CHECK(executor_ != nullptr, "Launch before Prepare");
  MILLRACE_CHECK(!finished_.has_value(), "one step in flight at a time");
  MILLRACE_RETURN_IF_ERROR(CheckStep(input, limits_));
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
