#include "kernels/reference/sampling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>

namespace millrace::reference {
namespace {

constexpr double kMasked = -std::numeric_limits<double>::infinity();

bool Contains(std::span<const std::uint32_t> tokens, std::size_t token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

void Normalise(std::vector<double>* p) {
  const double sum = std::accumulate(p->begin(), p->end(), 0.0);
  for (double& value : *p) value /= sum;
}

std::vector<std::size_t> Descending(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return values[a] > values[b]; });
  return order;
}

// Zeroes what top-p drops of a distribution; returns how near a decision was.
double KeepNucleus(double top_p, std::vector<double>* p) {
  double before = 0.0;
  double margin = 1.0;
  for (const std::size_t token : Descending(*p)) {
    margin = std::min(margin, std::fabs(before - top_p));
    const double probability = (*p)[token];
    if (before >= top_p) (*p)[token] = 0.0;
    before += probability;
  }
  return margin;
}

double KeepLikely(double min_p, std::vector<double>* p) {
  const double least = min_p * *std::max_element(p->begin(), p->end());
  double margin = 1.0;
  for (double& value : *p) {
    margin = std::min(margin, std::fabs(value - least) / least);
    if (value < least) value = 0.0;
  }
  return margin;
}

}  // namespace

std::vector<double> ChangedLogits(std::span<const float> logits, const SampleRow& row) {
  std::vector<double> out(logits.begin(), logits.end());
  const SamplerParams& params = row.params;
  for (const SeenToken& seen : row.seen) {
    double& x = out[seen.token];
    x = x > 0 ? x / params.repetition_penalty : x * params.repetition_penalty;
    x -= static_cast<double>(params.frequency_penalty) * seen.output_count;
    if (seen.output_count > 0) x -= params.presence_penalty;
  }
  for (const auto& [token, bias] : row.logit_bias) out[token] += bias;
  for (std::size_t token = 0; token < out.size(); ++token) {
    const bool allowed = row.allowed.empty() || Contains(row.allowed, token);
    if (!allowed || Contains(row.banned, token)) out[token] = kMasked;
  }
  return out;
}

std::vector<double> SamplingDistribution(std::span<const float> logits, const SampleRow& row,
                                         double* margin) {
  const SamplerParams& params = row.params;
  const std::vector<double> changed = ChangedLogits(logits, row);
  const std::vector<std::size_t> order = Descending(changed);
  const bool greedy = params.temperature == 0.0F;
  const std::size_t kept = greedy ? 1 : (params.top_k > 0 ? params.top_k : logits.size());
  std::vector<double> p(logits.size());
  for (std::size_t i = 0; i < std::min(kept, order.size()); ++i) {
    const double shifted = changed[order[i]] - changed[order[0]];
    p[order[i]] = std::exp(greedy ? shifted : shifted / params.temperature);
  }
  Normalise(&p);
  double nearest = 1.0;
  if (!greedy && params.top_p < 1.0F) nearest = KeepNucleus(params.top_p, &p);
  if (!greedy && params.min_p > 0.0F) nearest = std::min(nearest, KeepLikely(params.min_p, &p));
  Normalise(&p);
  if (margin != nullptr) *margin = nearest;
  return p;
}

std::vector<double> LogProbabilities(std::span<const float> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - max);
  std::vector<double> out;
  for (const float logit : logits) out.push_back(logit - max - std::log(sum));
  return out;
}

}  // namespace millrace::reference
