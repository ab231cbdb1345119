#include "runtime/model/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

namespace millrace {
namespace {

// The pair, as a real number, that turns `turns` times within the trained context.
double PairOfTurns(double turns, std::int32_t rotary_dim, double base, double original_context) {
  return rotary_dim * std::log(original_context / (turns * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(base));
}

void ApplyYarn(std::int32_t rotary_dim, double base, const RopeScaling& scaling,
               RopeFrequencies* out) {
  const double last = rotary_dim - 1;
  const double low = std::max(
      0.0, std::floor(PairOfTurns(scaling.beta_fast, rotary_dim, base, scaling.original_context)));
  double high = std::min(
      last, std::ceil(PairOfTurns(scaling.beta_slow, rotary_dim, base, scaling.original_context)));
  if (low == high) high += 0.001;  // a step, without dividing by zero
  for (std::size_t i = 0; i < out->inverse.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    const double stretched = out->inverse[i] / scaling.factor;
    out->inverse[i] = stretched * ramp + out->inverse[i] * (1.0 - ramp);
  }
  const double grown = scaling.factor > 1.0 ? 0.1 * std::log(scaling.factor) + 1.0 : 1.0;
  out->magnitude = scaling.attention_factor * grown;
}

}  // namespace

RopeFrequencies MakeRopeFrequencies(std::int32_t rotary_dim, double base,
                                    const RopeScaling& scaling) {
  RopeFrequencies out;
  for (std::int32_t i = 0; i < rotary_dim / 2; ++i) {
    out.inverse.push_back(std::pow(base, -2.0 * i / rotary_dim));
  }
  for (std::size_t i = 0; i < scaling.divisors.size(); ++i) {
    out.inverse[i] /= static_cast<double>(scaling.divisors[i]);
  }
  switch (scaling.kind) {
    case RopeScalingKind::kNone:
      break;
    case RopeScalingKind::kLinear:
      for (double& inverse : out.inverse) inverse /= scaling.factor;
      break;
    case RopeScalingKind::kYarn:
      ApplyYarn(rotary_dim, base, scaling, &out);
      break;
  }
  return out;
}

}  // namespace millrace
