// The maths of choosing the next token from raw logits; the same definition for every backend.
//
// Order: masks (allowed, banned) -> penalties -> logit bias -> (temperature 0: argmax, lowest id
// among equals) -> temperature -> top-k -> top-p -> min-p -> draw. The draw is counter based: the
// uniform number is a pure function of (seed, index, position), so it depends on no other request.
// Logprobs come from the raw logits: log softmax over the whole vocabulary. Penalties, once per
// distinct token seen: repetition (prompt or output): logit > 0 ? logit / r : logit * r; frequency:
// logit -= f * times in the output; presence: logit -= p if in the output.
//
// Leaf header; thread-safe (pure functions on caller's memory).
#ifndef MILLRACE_KERNELS_SAMPLING_H_
#define MILLRACE_KERNELS_SAMPLING_H_

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace millrace {

// Values are validated by runtime/sampling. Defaults change nothing.
struct SamplerParams {
  float temperature = 1.0F;  // 0: greedy
  std::uint32_t top_k = 0;   // 0: off
  float top_p = 1.0F;        // 1: off
  float min_p = 0.0F;        // 0: off
  float repetition_penalty = 1.0F;
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
  std::uint64_t seed = 0;

  bool has_penalties() const {
    return repetition_penalty != 1.0F || presence_penalty != 0.0F || frequency_penalty != 0.0F;
  }
};

// A distinct token of a sequence, for penalties.
struct SeenToken {
  std::uint32_t token = 0;
  std::uint32_t output_count = 0;  // 0: it stands in the prompt only
};

// One row to sample. Spans point at memory that outlives the call.
struct SampleRow {
  SamplerParams params;
  std::uint32_t index = 0;          // which of the request's sequences
  std::uint32_t position = 0;       // how many tokens this sequence has generated so far
  std::span<const SeenToken> seen;  // used if has_penalties()
  std::span<const std::pair<std::uint32_t, float>> logit_bias;
  std::span<const std::uint32_t> allowed;  // if not empty, no other token can be drawn
  std::span<const std::uint32_t> banned;   // never drawn (end tokens before min_new_tokens)
  std::int32_t num_logprobs = -1;          // -1: none; else the top n beside the sampled one, <= 20
};

struct TokenLogprob {
  std::uint32_t token = 0;
  float logprob = 0.0F;
};

struct SampledToken {
  std::uint32_t token = 0;
  bool finite =
      true;  // false: a logit is NaN or infinite, or no token is left; `token` means nothing
  // Of the raw logits, if asked for.
  float logprob = 0.0F;
  std::uint32_t rank = 0;  // 1 = the best
  std::vector<TokenLogprob> top;
};

// A uniform number in [0, 1) from Philox 4x32-10 with key `seed` and counter (index, position).
double UniformDraw(std::uint64_t seed, std::uint32_t index, std::uint32_t position);

// Chooses a token for `row`. `logits` [vocab] is left as it is; `scratch` grows to what is needed
// and may be reused from call to call.
struct SampleScratch {
  std::vector<float> logits;
  std::vector<std::uint32_t> order;
};
SampledToken SampleToken(std::span<const float> logits, const SampleRow& row,
                         SampleScratch* scratch);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_SAMPLING_H_
