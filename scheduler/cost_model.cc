#include "scheduler/cost_model.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace millrace {
namespace {

// The weight of the newest step: one outlier moves the estimate by a fifth, a change is learned in
// about ten steps.
constexpr double kNewest = 0.2;

// Steps stay below their target by so many mean deviations. Times spread evenly by any share stay
// within two; a distribution with a tail (normal: 3.2 standard deviations) has one in a hundred
// beyond.
constexpr double kDeviations = 3;
// The deviation is what must not deviate: of some forty steps.
constexpr double kNewestDeviation = 0.05;

void Blend(double sample, double* estimate, double newest = kNewest) {
  *estimate = *estimate == 0 ? sample : (1 - newest) * *estimate + newest * sample;
}

}  // namespace

void CostModel::Observe(std::int32_t prefill_tokens, std::int32_t decode_tokens,
                        Duration duration) {
  const double seconds = ToSeconds(duration);
  if (prefill_tokens == 0) {
    Blend(seconds, &decode_seconds_);
    return;
  }
  paced_seconds_ = (1 - kNewest) * paced_seconds_ + seconds;
  paced_tokens_ = (1 - kNewest) * paced_tokens_ + prefill_tokens;
  if (decode_tokens > 0 && prefill_token_seconds_ != 0) {
    const double expected = decode_seconds_ + prefill_tokens * prefill_token_seconds_;
    Blend(std::abs(seconds - expected), &deviation_, kNewestDeviation);
  }
  // What the streams would have cost by themselves belongs to them; a small chunk says little about
  // a token.
  const double decode = decode_tokens > 0 ? decode_seconds_ : 0;
  if (prefill_tokens < kMinChunk && prefill_token_seconds_ != 0) return;
  Blend(std::max(0.0, seconds - decode) / prefill_tokens, &prefill_token_seconds_);
}

void CostModel::ObserveTurns(std::int32_t admitted, Duration waited) {
  turn_seconds_ = (1 - kNewest) * turn_seconds_ + ToSeconds(waited);
  turns_ = (1 - kNewest) * turns_ + admitted;
}

Duration CostModel::Predict(std::int64_t prefill_tokens, std::int64_t decode_tokens) const {
  const double seconds = static_cast<double>(prefill_tokens) * prefill_token_seconds_ +
                         static_cast<double>(decode_tokens) * decode_seconds_;
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

std::int32_t CostModel::PrefillBudget(std::int32_t decode_tokens, Duration target,
                                      std::int32_t limit) const {
  if (decode_tokens == 0 || prefill_token_seconds_ == 0 || target <= Duration::zero()) return limit;
  // Twice an estimate is off by twice its error.
  const double goal = std::max(ToSeconds(target), 2 * decode_seconds_ - deviation_);
  const double left = goal - kDeviations * deviation_ - decode_seconds_;
  const double tokens = std::clamp(left / prefill_token_seconds_, 0.0, static_cast<double>(limit));
  return std::max(1, static_cast<std::int32_t>(tokens));
}

}  // namespace millrace
