#include "runtime/backend/cpu/step_buffers.h"

#include <algorithm>

#include "base/status.h"
#include "kernels/cpu/quantize.h"
#include "runtime/backend/carver.h"

namespace millrace::cpu {
namespace {

constexpr std::int64_t kLine = 64;
// What attention's partials may take beyond one token's: some tokens of a long context at a time.
constexpr std::int64_t kPartialBytes = std::int64_t{32} << 20;

// Rows of k values, rounded up so that the row of any format fits.
std::int64_t QuantisedBytes(ActivationFormat format, std::int64_t k) {
  return ActivationRowBytes(format, (k + 255) / 256 * 256);
}

StepBuffers Carve(const ProgramDims& d, const BackendLimits& limits, Carver* carver) {
  StepBuffers b;
  const std::int64_t tokens = limits.max_tokens;
  const std::int64_t rows = std::max<std::int64_t>(tokens, limits.max_logit_rows);
  const std::int64_t ranks = std::max(1, d.experts_per_token);
  const std::int64_t heads = std::int64_t{d.num_heads} * d.head_dim;
  const std::int64_t kv = std::int64_t{d.num_kv_heads} * d.head_dim;
  const std::int64_t pairs = std::max(1, d.rope.rotary_dim / 2);
  b.x = carver->Take<float>(tokens * d.hidden);
  b.normed = carver->Take<float>(rows * d.hidden);
  b.q = carver->Take<float>(tokens * heads);
  b.k = carver->Take<float>(tokens * kv);
  b.v = carver->Take<float>(tokens * kv);
  b.attended = carver->Take<float>(tokens * heads);
  b.projected = carver->Take<float>(tokens * d.hidden);
  b.cosines = carver->Take<float>(tokens * pairs);
  b.sines = carver->Take<float>(tokens * pairs);
  b.router = carver->Take<float>(tokens * d.num_experts);
  b.route_weights = carver->Take<float>(tokens * ranks);
  b.route_experts = carver->Take<std::int32_t>(tokens * ranks);
  b.gate = carver->Take<float>(tokens * ranks * d.ffn);
  b.up = carver->Take<float>(tokens * ranks * d.ffn);
  b.down = carver->Take<float>(tokens * ranks * d.hidden);
  b.logits = carver->Take<float>(std::int64_t{limits.max_logit_rows} * d.vocab);
  const std::int64_t one_token = NumPartitions(limits.max_context) * d.num_heads * (d.head_dim + 2);
  b.partial_floats =
      std::max(one_token, std::min<std::int64_t>(kPartialBytes / 4, one_token * tokens));
  b.partials = carver->Take<float>(b.partial_floats);
  for (std::size_t f = 0; f < kNumFormats; ++f) {
    const auto format = static_cast<ActivationFormat>(f);
    const std::int64_t k = std::max<std::int64_t>(d.hidden, heads);
    b.quantised[f] = carver->Take<std::byte>(rows * QuantisedBytes(format, k));
    b.ffn_quantised[f] = carver->Take<std::byte>(tokens * ranks * QuantisedBytes(format, d.ffn));
  }
  return b;
}

}  // namespace

std::int64_t StepBuffers::Bytes(const ProgramDims& dims, const BackendLimits& limits) {
  Carver carver(nullptr, kLine);
  Carve(dims, limits, &carver);
  return carver.used();
}

absl::StatusOr<StepBuffers> StepBuffers::Allocate(const ProgramDims& dims,
                                                  const BackendLimits& limits) {
  MILLRACE_ASSIGN_OR_RETURN(HugeBuffer memory,
                            HugeBuffer::Allocate(Bytes(dims, limits), "scratch of a step"));
  Carver carver(memory.data(), kLine);
  StepBuffers out = Carve(dims, limits, &carver);
  out.memory = std::move(memory);
  return out;
}

}  // namespace millrace::cpu
