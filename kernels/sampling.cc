#include "kernels/sampling.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>

#include "kernels/sampling_weights.h"

namespace millrace {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

// The largest value; NaNs are passed over. Lanes let the compiler use vectors.
float MaxOf(std::span<const float> values) {
  constexpr std::size_t kLanes = 16;
  std::array<float, kLanes> lanes;
  lanes.fill(kMasked);
  std::size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) {
      lanes[j] = values[i + j] > lanes[j] ? values[i + j] : lanes[j];
    }
  }
  float max = kMasked;
  for (; i < values.size(); ++i) max = values[i] > max ? values[i] : max;
  for (const float lane : lanes) max = lane > max ? lane : max;
  return max;
}

bool AllFinite(std::span<const float> values) {
  constexpr std::uint32_t kExponent = 0x7F800000U;
  std::uint32_t bad = 0;
  for (const float value : values) {
    bad |= (std::bit_cast<std::uint32_t>(value) & kExponent) == kExponent ? 1U : 0U;
  }
  return bad == 0;
}

bool ChangesLogits(const SampleRow& row) {
  return row.params.has_penalties() || !row.logit_bias.empty() || !row.allowed.empty() ||
         !row.banned.empty();
}

void ApplyPenalties(const SampleRow& row, std::span<float> logits) {
  const SamplerParams& params = row.params;
  for (const SeenToken& seen : row.seen) {
    if (seen.token >= logits.size()) continue;
    float& logit = logits[seen.token];
    if (params.repetition_penalty != 1.0F) {
      logit = logit > 0.0F ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    }
    if (seen.output_count == 0) continue;
    logit -= params.frequency_penalty * static_cast<float>(seen.output_count);
    logit -= params.presence_penalty;
  }
}

// Masks, penalties and bias, in that order. Masked tokens are -infinity and stay so.
void ChangeLogits(std::span<const float> logits, const SampleRow& row, std::vector<float>* out) {
  if (row.allowed.empty()) {
    out->assign(logits.begin(), logits.end());
  } else {
    out->assign(logits.size(), kMasked);
    for (const std::uint32_t token : row.allowed) {
      if (token < logits.size()) (*out)[token] = logits[token];
    }
  }
  for (const std::uint32_t token : row.banned) {
    if (token < logits.size()) (*out)[token] = kMasked;
  }
  if (row.params.has_penalties()) ApplyPenalties(row, *out);
  for (const auto& [token, bias] : row.logit_bias) {
    if (token < logits.size()) (*out)[token] += bias;
  }
}

// The best `count` tokens in descending order, ties by ascending id; masked ones never. One pass
// that keeps up to twice as many candidates and raises the bar each time they are thinned out.
void SelectTop(std::span<const float> logits, std::size_t count,
               std::vector<std::uint32_t>* order) {
  const auto before = [logits](std::uint32_t a, std::uint32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  };
  const auto thin = [&] {
    if (order->size() <= count) return;
    std::nth_element(order->begin(), order->begin() + static_cast<std::ptrdiff_t>(count),
                     order->end(), before);
    order->resize(count);
  };
  constexpr std::size_t kSlack = 64;
  order->clear();
  if (count == 0) return;
  float bar = kMasked;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > bar)) continue;
    order->push_back(static_cast<std::uint32_t>(i));
    if (order->size() < 2 * count + kSlack) continue;
    thin();
    bar = logits[*std::max_element(order->begin(), order->end(), before)];
  }
  thin();
  std::sort(order->begin(), order->end(), before);
}

// Sums in fixed lanes (kernels/sampling_weights.h).
double SumOf(std::span<const double> values) {
  std::array<double, kSampleLanes> lanes = {};
  std::size_t i = 0;
  for (; i + kSampleLanes <= values.size(); i += kSampleLanes) {
    for (std::size_t j = 0; j < kSampleLanes; ++j) lanes[j] += values[i + j];
  }
  for (; i < values.size(); ++i) lanes[0] += values[i];
  double sum = 0.0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

// Weights of a slice of the vocabulary, 0 where below `least`.
std::size_t SliceWeights(std::span<const float> logits, std::size_t begin,
                         const SampleWeights& weights, double least,
                         std::array<double, kSampleSlice>* out) {
  const std::size_t n = std::min(kSampleSlice, logits.size() - begin);
  for (std::size_t i = 0; i < n; ++i) {
    const double w = weights(logits[begin + i]);
    (*out)[i] = w >= least ? w : 0.0;
  }
  return n;
}

double SumOfWeights(std::span<const float> logits, const SampleWeights& weights, double least) {
  std::array<double, kSampleSlice> slice;
  double total = 0.0;
  for (std::size_t begin = 0; begin < logits.size(); begin += kSampleSlice) {
    total += SumOf({slice.data(), SliceWeights(logits, begin, weights, least, &slice)});
  }
  return total;
}

// The first position whose running sum exceeds `target`; for what rounding leaves over, the last of
// positive weight.
std::size_t WalkTo(std::span<const double> weights, double target) {
  std::size_t last = 0;
  double sum = 0.0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0.0) continue;
    last = i;
    sum += weights[i];
    if (sum > target) break;
  }
  return last;
}

// Draws from the whole vocabulary. Sums slices until the one that `target` falls into.
std::uint32_t DrawFromAll(std::span<const float> logits, const SampleWeights& weights, double least,
                          double uniform) {
  std::array<double, kSampleSlice> slice;
  double target = uniform * SumOfWeights(logits, weights, least);
  std::size_t token = 0;
  for (std::size_t begin = 0; begin < logits.size(); begin += kSampleSlice) {
    const std::size_t n = SliceWeights(logits, begin, weights, least, &slice);
    const double sum = SumOf({slice.data(), n});
    if (sum > 0.0) token = begin + WalkTo({slice.data(), n}, target);
    if (sum > target) break;
    target -= sum;
  }
  return static_cast<std::uint32_t>(token);
}

// Draws from `tokens`, walked by ascending id as if all others had weight 0.
std::uint32_t DrawFrom(std::span<const float> logits, const SampleWeights& weights, double uniform,
                       std::vector<std::uint32_t>* tokens) {
  std::sort(tokens->begin(), tokens->end());
  double total = 0.0;
  for (const std::uint32_t token : *tokens) total += weights(logits[token]);
  const double target = uniform * total;
  double sum = 0.0;
  for (const std::uint32_t token : *tokens) {
    sum += weights(logits[token]);
    if (sum > target) return token;
  }
  return tokens->back();
}

// How many of the descending `order` the nucleus holds: the shortest prefix whose weights reach
// top_p of `total`; order.size() + 1 if they do not.
std::size_t NucleusSize(std::span<const float> logits, const SampleWeights& weights, double wanted,
                        std::span<const std::uint32_t> order) {
  double sum = 0.0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    sum += weights(logits[order[i]]);
    if (sum >= wanted) return i + 1;
  }
  return order.size() + 1;
}

// top-k, then top-p: leaves the kept tokens in `order`.
void SelectCandidates(std::span<const float> logits, const SampleWeights& weights,
                      const SamplerParams& params, std::vector<std::uint32_t>* order) {
  if (params.top_k > 0 && params.top_k < logits.size()) {
    SelectTop(logits, params.top_k, order);
    if (params.top_p >= 1.0F) return;
    double total = 0.0;
    for (const std::uint32_t token : *order) total += weights(logits[token]);
    const std::size_t size = NucleusSize(logits, weights, params.top_p * total, *order);
    order->resize(std::min(size, order->size()));
    return;
  }
  // The nucleus of a language model is small as a rule: widen the search until it is inside.
  constexpr std::size_t kFirst = 128;
  constexpr std::size_t kGrowth = 16;
  const double wanted = params.top_p * SumOfWeights(logits, weights, 0.0);
  for (std::size_t count = kFirst;; count *= kGrowth) {
    SelectTop(logits, std::min(count, logits.size()), order);
    const std::size_t size = NucleusSize(logits, weights, wanted, *order);
    if (size <= order->size()) return order->resize(size);
    if (count >= logits.size()) return;
  }
}

std::uint32_t Draw(std::span<const float> logits, float max, const SampleRow& row,
                   std::vector<std::uint32_t>* order) {
  const SamplerParams& params = row.params;
  const SampleWeights weights = {max, params.temperature};
  const double uniform = UniformDraw(params.seed, row.index, row.position);
  // The best token has weight 1, so min-p of its probability is min-p of weight.
  const double least = std::min(1.0, static_cast<double>(params.min_p));
  const bool has_top_k = params.top_k > 0 && params.top_k < logits.size();
  if (!has_top_k && params.top_p >= 1.0F) return DrawFromAll(logits, weights, least, uniform);
  SelectCandidates(logits, weights, params, order);
  while (weights(logits[order->back()]) < least) order->pop_back();
  return DrawFrom(logits, weights, uniform, order);
}

void AddLogprobs(std::span<const float> logits, float max, std::int32_t count,
                 std::vector<std::uint32_t>* order, SampledToken* out) {
  const SampleWeights weights = {max, 1.0};
  const double log_total = std::log(SumOfWeights(logits, weights, 0.0));
  const auto logprob = [&](std::uint32_t token) {
    return static_cast<float>(static_cast<double>(logits[token]) - max - log_total);
  };
  const float chosen = logits[out->token];
  std::uint32_t ahead = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) ahead += logits[i] > chosen ? 1U : 0U;
  for (std::size_t i = 0; i < out->token; ++i) ahead += logits[i] == chosen ? 1U : 0U;
  out->logprob = logprob(out->token);
  out->rank = ahead + 1;
  SelectTop(logits, static_cast<std::size_t>(count), order);
  out->top.reserve(order->size());
  for (const std::uint32_t token : *order) out->top.push_back({token, logprob(token)});
}

SampledToken NotFinite() {
  SampledToken out;
  out.finite = false;
  return out;
}

}  // namespace

double UniformDraw(std::uint64_t seed, std::uint32_t index, std::uint32_t position) {
  return UniformNumber(seed, index, position);
}

SampledToken SampleToken(std::span<const float> logits, const SampleRow& row,
                         SampleScratch* scratch) {
  if (!AllFinite(logits)) return NotFinite();
  std::span<const float> changed = logits;
  if (ChangesLogits(row)) {
    ChangeLogits(logits, row, &scratch->logits);
    changed = scratch->logits;
  }
  const float max = MaxOf(changed);
  if (!std::isfinite(max)) return NotFinite();  // all masked, or driven to infinity by penalties
  SampledToken out;
  if (row.params.temperature == 0.0F || row.params.top_k == 1) {
    out.token = static_cast<std::uint32_t>(std::find(changed.begin(), changed.end(), max) -
                                           changed.begin());
  } else {
    out.token = Draw(changed, max, row, &scratch->order);
  }
  if (row.num_logprobs >= 0) {
    const float raw_max = changed.data() == logits.data() ? max : MaxOf(logits);
    AddLogprobs(logits, raw_max, row.num_logprobs, &scratch->order, &out);
  }
  return out;
}

}  // namespace millrace
