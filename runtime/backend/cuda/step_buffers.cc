#include "runtime/backend/cuda/step_buffers.h"

#include <algorithm>

#include "base/status.h"
#include "kernels/cuda/activations.h"
#include "kernels/cuda/sampling.h"
#include "kernels/paged_kv.h"
#include "runtime/backend/carver.h"
#include "runtime/backend/cuda/cuda_status.h"

namespace millrace::cuda {
namespace {

// What attention's partials may take beyond one token's: a chunk of 512 tokens at 8 192 positions,
// or 256 sequences at 16 384, of 32 heads of 128, in one wave.
constexpr std::int64_t kPartialBytes = std::int64_t{288} << 20;

std::int64_t PartialBytes(const ProgramDims& dims) {
  return std::int64_t{dims.num_heads} * (dims.head_dim + 2) * std::int64_t{sizeof(float)};
}

std::byte* TakeRows(ActivationFormat format, std::int64_t rows, std::int64_t k, Carver* carver) {
  // Rounded up so that a row of any format fits.
  return carver->Take<std::byte>(rows *
                                 ActivationLayoutOf(format, RoundUp(k, kActivationUnit)).row_bytes);
}
ActivationRows TakeAllRows(std::int64_t rows, std::int64_t k, Carver* carver) {
  return {.f32 = TakeRows(ActivationFormat::kF32, rows, k, carver),
          .q8x32 = TakeRows(ActivationFormat::kQ8x32, rows, k, carver),
          .q8x256 = TakeRows(ActivationFormat::kQ8x256, rows, k, carver)};
}

StepBuffers Carve(const ProgramDims& d, const BackendLimits& limits, Carver* carver) {
  StepBuffers b;
  const std::int64_t tokens = limits.max_tokens;
  const std::int64_t logits = limits.max_logit_rows;
  const std::int64_t experts = std::max(1, d.num_experts);
  const std::int64_t rows = tokens * std::max(1, d.experts_per_token);
  const std::int64_t heads = std::int64_t{d.num_heads} * d.head_dim;
  const std::int64_t kv = std::int64_t{d.num_kv_heads} * d.head_dim;
  const std::int64_t angles = std::int64_t{limits.max_context} * (d.rope.rotary_dim / 2);
  b.x = carver->Take<float>(tokens * d.hidden);
  b.q = carver->Take<float>(tokens * heads);
  b.k = carver->Take<float>(tokens * kv);
  b.v = carver->Take<float>(tokens * kv);
  b.cosines = carver->Take<float>(angles);
  b.sines = carver->Take<float>(angles);
  b.partials =
      carver->Take<float>(MaxPartials(d, limits) * PartialBytes(d) / std::int64_t{sizeof(float)});
  b.router = carver->Take<float>(tokens * experts);
  b.route_weights = carver->Take<float>(rows);
  b.route_experts = carver->Take<std::int32_t>(rows);
  b.expert_offsets = carver->Take<std::int32_t>(experts + 1);
  b.row_tokens = carver->Take<std::int32_t>(rows);
  b.row_slots = carver->Take<std::int32_t>(rows);
  b.expert_rows = carver->Take<std::int32_t>(d.num_layers * experts);
  b.gate = carver->Take<float>(rows * d.ffn);
  b.up = carver->Take<float>(rows * d.ffn);
  b.down = carver->Take<float>(rows * d.hidden);
  b.logits = carver->Take<float>(logits * d.vocab);
  for (int slot = 0; slot < 2; ++slot) {
    b.sampled[slot] = carver->Take<SampleResult>(logits);
    b.sampled_tokens[slot] = carver->Take<std::int32_t>(logits);
  }
  b.sampling_scratch = carver->Take<std::byte>(
      static_cast<std::int64_t>(SampleScratchBytes(limits.max_logit_rows, d.vocab)));
  b.counters = carver->Take<std::int32_t>(kStepCounters);
  b.hidden_rows = TakeAllRows(std::max(tokens, logits), d.hidden, carver);
  b.attended_rows = TakeAllRows(tokens, heads, carver);
  b.ffn_rows = TakeAllRows(rows, d.ffn, carver);
  return b;
}

}  // namespace

std::int64_t MaxPartials(const ProgramDims& dims, const BackendLimits& limits) {
  const std::int64_t one_token = NumPartitions(limits.max_context);
  const std::int64_t most = one_token * limits.max_tokens;
  return std::max(one_token, std::min(kPartialBytes / PartialBytes(dims), most));
}

std::int64_t StepBuffers::Bytes(const ProgramDims& dims, const BackendLimits& limits) {
  Carver carver(nullptr, kPieceAlignment);
  Carve(dims, limits, &carver);
  return carver.used();
}

absl::StatusOr<StepBuffers> StepBuffers::Allocate(const ProgramDims& dims,
                                                  const BackendLimits& limits) {
  MILLRACE_ASSIGN_OR_RETURN(DeviceMemory memory,
                            DeviceMemory::Allocate(Bytes(dims, limits), "scratch"));
  Carver carver(memory.data(), kPieceAlignment);
  StepBuffers buffers = Carve(dims, limits, &carver);
  buffers.memory = std::move(memory);
  MILLRACE_RETURN_IF_ERROR(ToStatus(
      cudaMemset(buffers.counters, 0, kStepCounters * sizeof(std::int32_t)), "clearing counters"));
  return buffers;
}

}  // namespace millrace::cuda
