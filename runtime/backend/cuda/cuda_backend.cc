#include "runtime/backend/cuda/cuda_backend.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/rope_append.h"
#include "kernels/cuda/route.h"
#include "kernels/rope_angles.h"
#include "runtime/backend/cuda/cuda_status.h"
#include "runtime/backend/cuda/step_shape.h"
#include "runtime/backend/step_check.h"

namespace millrace::cuda {

CudaBackend::CudaBackend(const CudaOptions& options, DeviceFacts facts)
    : options_(options), facts_(std::move(facts)), state_(std::make_unique<DeviceState>(options)) {}

CudaBackend::~CudaBackend() {
  if (hung_) {
    static auto* abandoned = new std::vector<std::unique_ptr<DeviceState>>;
    abandoned->push_back(std::move(state_));
    return;
  }
  // The library's handle can be destroyed on its own device alone; a device that is lost has none.
  (void)UseDevice();
  // Kernels that still run read what the members own.
  if (state_->stream != nullptr) cudaStreamSynchronize(state_->stream.get());
}

absl::StatusOr<std::unique_ptr<CudaBackend>> CudaBackend::Create(const CudaOptions& options) {
  MILLRACE_ASSIGN_OR_RETURN(DeviceFacts facts, OpenDevice(options.device));
  std::unique_ptr<CudaBackend> backend(new CudaBackend(options, std::move(facts)));
  MILLRACE_ASSIGN_OR_RETURN(backend->state_->stream, MakeStream());
  for (Slot& slot : backend->state_->slots) {
    MILLRACE_ASSIGN_OR_RETURN(slot.done, MakeEvent());
  }
  if (options.library.use) {
    MILLRACE_ASSIGN_OR_RETURN(backend->state_->library, LibraryProducts::Open(options.library));
  }
  return backend;
}

std::string CudaBackend::device() const {
  return absl::StrCat("cuda:", facts_.index, ", ", facts_.name);
}

std::string CudaBackend::isa() const {
  if (state_->library == nullptr) return facts_.isa;
  return absl::StrCat(facts_.isa, ", cuBLAS ", state_->library->version());
}

absl::StatusOr<WeightId> CudaBackend::LoadWeight(std::string_view name, DType dtype,
                                                 std::span<const std::int64_t> shape,
                                                 const ByteSource& source) {
  MILLRACE_RETURN_IF_ERROR(UseDevice());
  return state_->weights.Load(name, dtype, shape, source);
}

absl::Status CudaBackend::UseDevice() const {
  return ToStatus(cudaSetDevice(facts_.index), "choosing the device");
}

std::int64_t CudaBackend::AvailableBytes() const {
  std::size_t free = 0;
  std::size_t total = 0;
  // Without an answer there is none: planning then says what does not fit.
  if (!UseDevice().ok() || cudaMemGetInfo(&free, &total) != cudaSuccess) return 0;
  return static_cast<std::int64_t>(free);
}

std::int64_t CudaBackend::ScratchBytes(const Program& program, const BackendLimits& limits) const {
  const std::int64_t library =
      state_->library == nullptr ? 0 : state_->library->Bytes(program.dims, limits);
  return StepBuffers::Bytes(program.dims, limits) +
         StepTables::Bytes(limits, MaxPartials(program.dims, limits)) + library;
}

std::int64_t CudaBackend::expert_rows_bytes() const {
  return std::int64_t{program_.dims.num_layers} * program_.dims.num_experts *
         std::int64_t{sizeof(std::int32_t)};
}

std::int64_t CudaBackend::result_bytes() const {
  return limits_.max_logit_rows * std::int64_t{sizeof(SampleResult)} + expert_rows_bytes();
}

// Once, for every position there can be.
absl::Status CudaBackend::FillAngles() {
  const RopeSpec& rope = program_.dims.rope;
  const auto pairs = static_cast<std::size_t>(rope.rotary_dim / 2);
  const std::size_t count = static_cast<std::size_t>(limits_.max_context) * pairs;
  std::vector<float> cosines(count);
  std::vector<float> sines(count);
  for (std::int32_t p = 0; p < limits_.max_context; ++p) {
    const std::size_t at = static_cast<std::size_t>(p) * pairs;
    RopeAngles(p, rope.inverse_frequency, rope.magnitude, &cosines[at], &sines[at]);
  }
  MILLRACE_RETURN_IF_ERROR(ToStatus(cudaMemcpy(state_->buffers.cosines, cosines.data(),
                                               count * sizeof(float), cudaMemcpyHostToDevice),
                                    "copying angles"));
  return ToStatus(cudaMemcpy(state_->buffers.sines, sines.data(), count * sizeof(float),
                             cudaMemcpyHostToDevice),
                  "copying angles");
}

// What the kernels' tables hold; every model that we know of lies far within.
absl::Status CudaBackend::CheckModel(const ProgramDims& dims, const BackendLimits& limits) const {
  if (!CanAttend(limits.kv.dtype, dims.head_dim)) {
    return absl::UnimplementedError(
        absl::StrCat("heads of ", dims.head_dim, " values: on CUDA they are multiples of ",
                     kHeadDimMultiple, ", at most ", kMaxHeadDim, "; use --device cpu"));
  }
  if (dims.num_experts > kMaxRoutedExperts || dims.experts_per_token > kMaxExpertsPerToken) {
    return absl::UnimplementedError(absl::StrCat(dims.experts_per_token, " of ", dims.num_experts,
                                                 " experts: on CUDA at most ", kMaxExpertsPerToken,
                                                 " of ", kMaxRoutedExperts, "; use --device cpu"));
  }
  if (NormSharedBytes(dims.hidden) > facts_.shared_bytes) {
    return absl::UnimplementedError(
        absl::StrCat("rows of ", dims.hidden, " values: their norm takes ",
                     NormSharedBytes(dims.hidden), " bytes of shared memory, and ", facts_.name,
                     " gives ", facts_.shared_bytes, "; use --device cpu"));
  }
  for (const AttentionTileInfo& tile : kAttentionTiles) {
    const auto bytes =
        static_cast<std::int64_t>(AttentionSharedBytes(tile.tile, limits.kv.dtype, dims.head_dim));
    if (bytes <= facts_.shared_bytes) continue;
    return absl::UnimplementedError(absl::StrCat(
        "attention to heads of ", dims.head_dim, " values in a cache of ", limits.kv.row_bytes(),
        " bytes each takes ", bytes, " bytes of shared memory, and ", facts_.name, " gives ",
        facts_.shared_bytes, ": choose a smaller --kv-dtype, or --device cpu"));
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::Prepare(const Program& program, const BackendLimits& limits) {
  MILLRACE_CHECK(state_->executor == nullptr, "a backend is prepared once");
  MILLRACE_RETURN_IF_ERROR(CheckModel(program.dims, limits));
  MILLRACE_RETURN_IF_ERROR(UseDevice());
  state_->weights.FinishLoading();
  program_ = program;
  limits_ = limits;
  MILLRACE_ASSIGN_OR_RETURN(
      state_->kv,
      DeviceMemory::Allocate(limits.kv.block_bytes() * limits.num_kv_blocks, "KV cache"));
  MILLRACE_ASSIGN_OR_RETURN(state_->buffers, StepBuffers::Allocate(program.dims, limits));
  MILLRACE_ASSIGN_OR_RETURN(
      state_->tables,
      StepTables::Allocate(program.dims, limits, MaxPartials(program.dims, limits)));
  MILLRACE_RETURN_IF_ERROR(FillAngles());
  for (Slot& slot : state_->slots) {
    MILLRACE_ASSIGN_OR_RETURN(slot.results,
                              PinnedMemory::Allocate(result_bytes(), "results on the host"));
  }
  if (state_->library != nullptr) {
    MILLRACE_RETURN_IF_ERROR(state_->library->Prepare(
        program_.dims, limits, LibraryWeights(program_, state_->weights), state_->stream.get()));
  }
  attention_plan_.Reserve(limits);
  state_->executor = std::make_unique<Executor>(
      &program_, limits_, facts_, &state_->weights, &state_->buffers, &state_->tables,
      state_->kv.data(), options_.fused, state_->library.get());
  state_->graphs = std::make_unique<StepGraphs>(state_->executor.get());
  // Copies from pageable memory may still be under way, and steps' stream does not wait for them.
  return ToStatus(cudaDeviceSynchronize(), "copying weights and angles");
}

// A deferred token is one that the step before samples, whether that is still in flight or not.
absl::Status CudaBackend::CheckDeferred(const StepInput& input) const {
  for (const DeferredToken& deferred : input.deferred) {
    const Slot& previous = state_->slots[last_ticket_.value() % kSlots];
    const std::int32_t rows = last_ticket_ == StepTicket() ? 0 : previous.num_logits;
    if (deferred.ticket == last_ticket_ && deferred.row >= 0 && deferred.row < rows) continue;
    return absl::InternalError(absl::StrCat("a token of step ", deferred.ticket.value(), ", row ",
                                            deferred.row, ", which is not the newest step"));
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::PutCopies(const StepInput& input, Slot* slot, int index) {
  const std::size_t rows = input.samples.size();
  if (rows > 0) {
    MILLRACE_RETURN_IF_ERROR(ToStatus(
        cudaMemcpyAsync(slot->results.data(), state_->buffers.sampled[index],
                        rows * sizeof(SampleResult), cudaMemcpyDeviceToHost, state_->stream.get()),
        "copying results"));
  }
  if (expert_rows_bytes() > 0) {
    std::byte* to = slot->results.data() + limits_.max_logit_rows * sizeof(SampleResult);
    MILLRACE_RETURN_IF_ERROR(ToStatus(cudaMemcpyAsync(to, state_->buffers.expert_rows,
                                                      static_cast<std::size_t>(expert_rows_bytes()),
                                                      cudaMemcpyDeviceToHost, state_->stream.get()),
                                      "copying results"));
  }
  if (!slot->return_logits || slot->num_logits == 0) return absl::OkStatus();
  const std::int64_t row_bytes = program_.dims.vocab * std::int64_t{sizeof(float)};
  if (slot->logits.bytes() == 0) {
    MILLRACE_ASSIGN_OR_RETURN(
        slot->logits,
        PinnedMemory::Allocate(limits_.max_logit_rows * row_bytes, "logits on the host"));
  }
  return ToStatus(cudaMemcpyAsync(slot->logits.data(), state_->buffers.logits,
                                  static_cast<std::size_t>(slot->num_logits * row_bytes),
                                  cudaMemcpyDeviceToHost, state_->stream.get()),
                  "copying logits");
}

absl::Status CudaBackend::PutKernels(const StepShape& shape, int index) {
  cudaStream_t const stream = state_->stream.get();
  LibraryProducts* const library = state_->library.get();
  if (options_.graphs && FitsGraph(shape)) {
    const StepShape padded = GraphShape(shape, limits_);
    if (library == nullptr || !library->MayServe(padded.tokens)) {
      return state_->graphs->Launch(padded, index, stream);
    }
  }
  const cudaError_t put = state_->executor->Run(shape, index, stream);
  // What the library says of its own failure is more than that a step was not launched.
  if (library != nullptr) MILLRACE_RETURN_IF_ERROR(library->status());
  return ToStatus(put, "launching a step's kernels");
}

absl::Status CudaBackend::PutStep(const StepInput& input, Slot* slot, int index) {
  attention_plan_.Build(input, limits_.kv.block_size, MaxPartials(program_.dims, limits_));
  const absl::Status written =
      state_->tables.Write(index, input, attention_plan_, state_->stream.get());
  if (state_->tables.moved()) state_->graphs->Clear();
  MILLRACE_RETURN_IF_ERROR(written);
  const StepShape shape = ExactShape(input, attention_plan_, state_->tables.sample_shape(),
                                     program_.dims, facts_.multiprocessors);
  MILLRACE_RETURN_IF_ERROR(PutKernels(shape, index));
  MILLRACE_RETURN_IF_ERROR(PutCopies(input, slot, index));
  MILLRACE_RETURN_IF_ERROR(
      ToStatus(cudaEventRecord(slot->done.get(), state_->stream.get()), "launching a step"));
  state_->waiter.Watch(slot->done.get());
  return absl::OkStatus();
}

absl::StatusOr<StepTicket> CudaBackend::Launch(const StepInput& input) {
  MILLRACE_CHECK(state_->executor != nullptr, "Launch before Prepare");
  MILLRACE_RETURN_IF_ERROR(CheckStep(input, limits_));
  MILLRACE_RETURN_IF_ERROR(CheckTokens(input.token_ids, program_.dims.vocab));
  MILLRACE_RETURN_IF_ERROR(CheckDeferred(input));
  MILLRACE_RETURN_IF_ERROR(UseDevice());
  const StepTicket ticket(last_ticket_.value() + 1);
  const auto index = static_cast<int>(ticket.value() % kSlots);
  Slot& slot = state_->slots[static_cast<std::size_t>(index)];
  MILLRACE_CHECK(!slot.in_flight, "more steps in flight than max_in_flight");
  slot.ticket = ticket;
  slot.num_logits = static_cast<std::int32_t>(input.logit_rows.size());
  slot.return_logits = input.return_logits;
  slot.samples.clear();
  for (const SampleRow& row : input.samples) {
    slot.samples.emplace_back().num_logprobs = row.num_logprobs;
  }
  MILLRACE_RETURN_IF_ERROR(PutStep(input, &slot, index));
  slot.in_flight = true;
  last_ticket_ = ticket;
  return ticket;
}

MoeStepStats CudaBackend::Statistics(const Slot& slot) const {
  MoeStepStats stats;
  const std::int32_t experts = program_.dims.num_experts;
  if (experts == 0) return stats;
  const auto* rows = reinterpret_cast<const std::int32_t*>(
      slot.results.data() + limits_.max_logit_rows * sizeof(SampleResult));
  for (std::int32_t layer = 0; layer < program_.dims.num_layers; ++layer) {
    std::int32_t active = 0;
    for (std::int32_t e = 0; e < experts; ++e) {
      const std::int32_t count = rows[std::int64_t{layer} * experts + e];
      if (count == 0) continue;
      ++active;
      stats.rows_per_expert.push_back(count);
    }
    stats.active_experts.push_back(active);
  }
  return stats;
}

absl::StatusOr<StepOutput> CudaBackend::Await(StepTicket ticket) {
  Slot& slot = state_->slots[ticket.value() % kSlots];
  MILLRACE_CHECK(slot.in_flight && slot.ticket == ticket && ticket == next_awaited_,
                 "tickets are awaited in order, once");
  const std::optional<cudaError_t> ended = state_->waiter.Await(options_.step_limit);
  if (!ended.has_value()) {
    hung_ = true;
    return absl::UnavailableError(
        absl::StrCat("CUDA: a step has not ended after ", ToSeconds(options_.step_limit), " s"));
  }
  MILLRACE_RETURN_IF_ERROR(ToStatus(*ended, "waiting for a step"));
  slot.in_flight = false;
  next_awaited_ = StepTicket(ticket.value() + 1);
  StepOutput output;
  const auto* results = reinterpret_cast<const SampleResult*>(slot.results.data());
  for (std::size_t i = 0; i < slot.samples.size(); ++i) {
    output.sampled.push_back(UnpackSampled(results[i], slot.samples[i]));
  }
  if (slot.return_logits) {
    const auto* logits = reinterpret_cast<const float*>(slot.logits.data());
    output.logits.assign(logits, logits + std::int64_t{slot.num_logits} * program_.dims.vocab);
  }
  output.moe = Statistics(slot);
  return output;
}

}  // namespace millrace::cuda
