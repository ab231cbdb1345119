#include "kernels/reference/attention.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace millrace::reference {

AttentionResult Attention(std::span<const float> q, std::span<const float> keys,
                          std::span<const float> values, double scale) {
  const std::size_t dim = q.size();
  const std::size_t context = keys.size() / dim;
  AttentionResult result;
  std::vector<double> p(context);
  for (std::size_t j = 0; j < context; ++j) {
    double magnitude = 0.0;
    for (std::size_t i = 0; i < dim; ++i) {
      const double product = static_cast<double>(q[i]) * keys[j * dim + i];
      p[j] += scale * product;
      magnitude += scale * std::fabs(product);
    }
    result.max_score = std::max(result.max_score, magnitude);
  }
  const double max = *std::max_element(p.begin(), p.end());
  double sum = 0.0;
  for (double& weight : p) {
    weight = std::exp(weight - max);
    sum += weight;
  }
  result.out.resize(dim);
  result.magnitude.resize(dim);
  for (std::size_t j = 0; j < context; ++j) {
    for (std::size_t i = 0; i < dim; ++i) {
      const double term = p[j] / sum * values[j * dim + i];
      result.out[i] += term;
      result.magnitude[i] += std::fabs(term);
    }
  }
  return result;
}

double AttentionErrorFactor(std::int64_t head_dim, std::int64_t context, double max_score) {
  constexpr double kUnit = 0x1p-24;
  const std::int64_t whole_chunks = (head_dim + 15) / 16;
  const std::int64_t whole_partitions = (context + 255) / 256;
  const auto chunks = static_cast<double>(whole_chunks);
  const auto partitions = static_cast<double>(whole_partitions);
  const double shift = 2.0 * max_score + 2.0;  // of a difference of scores and its exp
  const double weight = (chunks + 5.0) * max_score + shift;
  const double merge = partitions * (shift + 2.0);
  return 1.01 * kUnit * (2.0 * weight + 256.0 + 20.0 + 2.0 * merge + 1.0);
}

}  // namespace millrace::reference
