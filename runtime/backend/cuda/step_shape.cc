#include "runtime/backend/cuda/step_shape.h"

#include <algorithm>
#include <array>
#include <bit>

namespace millrace::cuda {
namespace {

// Numbers of tokens for which graphs are captured: a third or less of padding, and few graphs.
constexpr std::array<std::int32_t, 16> kTokenBuckets = {
    1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, kMaxGraphTokens};

std::int32_t TokenBucket(std::int32_t tokens) {
  return *std::lower_bound(kTokenBuckets.begin(), kTokenBuckets.end(), tokens);
}
std::int32_t PowerOfTwo(std::int32_t n) {
  return n <= 0 ? 0 : static_cast<std::int32_t>(std::bit_ceil(static_cast<std::uint32_t>(n)));
}

}  // namespace

bool StepShape::operator==(const StepShape& other) const {
  return tokens == other.tokens && logits == other.logits && taken == other.taken &&
         waves == other.waves && samples == other.samples && sample.Covers(other.sample) &&
         other.sample.Covers(sample);
}

StepShape ExactShape(const StepInput& input, const AttentionPlan& plan, const SampleShape& sample,
                     const ProgramDims& dims, std::int32_t multiprocessors) {
  StepShape shape;
  shape.tokens = static_cast<std::int32_t>(input.token_ids.size());
  shape.logits = static_cast<std::int32_t>(input.logit_rows.size());
  shape.taken = static_cast<std::int32_t>(input.deferred.size());
  shape.samples = !input.samples.empty();
  shape.sample = sample;
  for (const AttentionPlan::Wave& wave : plan.waves()) {
    WaveShape out;
    out.tokens_begin = wave.tokens_begin;
    out.tokens = wave.tokens_end - wave.tokens_begin;
    out.units_begin = wave.units_begin;
    out.units = wave.units_end - wave.units_begin;
    for (std::int32_t u = wave.units_begin; u < wave.units_end; ++u) {
      out.queries = std::max(out.queries, plan.units()[static_cast<std::size_t>(u)].count);
    }
    out.tile = ChooseAttentionTile({.units = out.units,
                                    .queries_per_unit = out.queries,
                                    .group = dims.num_heads / dims.num_kv_heads,
                                    .num_kv_heads = dims.num_kv_heads},
                                   multiprocessors);
    shape.waves.push_back(out);
  }
  return shape;
}

bool FitsGraph(const StepShape& shape) {
  return shape.tokens <= kMaxGraphTokens && shape.logits <= kMaxGraphTokens &&
         shape.waves.size() == 1;
}

StepShape GraphShape(const StepShape& shape, const BackendLimits& limits) {
  StepShape out = shape;
  out.tokens = std::min(TokenBucket(shape.tokens), limits.max_tokens);
  out.logits = shape.logits == 0 ? 0 : std::min(TokenBucket(shape.logits), limits.max_logit_rows);
  out.taken = shape.taken == 0 ? 0 : out.tokens;
  WaveShape& wave = out.waves.front();
  wave.tokens = out.tokens;
  wave.units = PowerOfTwo(wave.units);
  wave.queries = wave.queries > 1 ? AttentionPlan::kMaxQueries : 1;
  if (out.samples) {
    out.sample.rows = out.logits;
    out.sample.passes = std::min(2 * out.logits, PowerOfTwo(shape.sample.passes));
    out.sample.passes = std::max(out.sample.passes, out.logits);
    out.sample.changes = shape.sample.changes == 0 ? 0 : out.logits;
  }
  return out;
}

}  // namespace millrace::cuda
