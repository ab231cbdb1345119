#include "kernels/reference/moe.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace millrace::reference {

std::vector<double> RouterProbabilities(std::span<const float> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p;
  for (const float logit : logits) p.push_back(std::exp(logit - max));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= sum;
  return p;
}

std::vector<std::int32_t> BestExperts(std::span<const double> probabilities, std::int32_t k) {
  std::vector<std::int32_t> order(probabilities.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return probabilities[static_cast<std::size_t>(a)] > probabilities[static_cast<std::size_t>(b)];
  });
  order.resize(static_cast<std::size_t>(k));
  return order;
}

double Swiglu(double gate, double up) { return gate / (1.0 + std::exp(-gate)) * up; }

}  // namespace millrace::reference
