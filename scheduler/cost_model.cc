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

// No single step counts for more than twice what was expected.
double Plausible(double sample, double expected) {
  return expected == 0 ? sample : std::min(sample, 2 * expected);
}

void Blend(double sample, double* estimate, double newest = kNewest) {
  *estimate = *estimate == 0 ? sample : (1 - newest) * *estimate + newest * sample;
}

}  // namespace

void CostModel::Observe(std::int32_t prefill_tokens, std::int32_t decode_tokens,
                        Duration duration) {
  const double seconds = ToSeconds(duration);
  old_ = false;
  if (prefill_tokens == 0) {
    Blend(Plausible(seconds, decode_seconds_), &decode_seconds_);
  } else if (decode_tokens > 0 && decode_seconds_ == 0 && prefill_tokens < kMinChunk) {
    Blend(seconds, &decode_seconds_);  // at most that
  } else if (decode_tokens == 0 || decode_seconds_ == 0) {
    ObservePrefill(prefill_tokens, seconds);
  } else if (prefill_token_seconds_ == 0) {
    // What the streams would have cost by themselves belongs to them, but the prompt had a part: a
    // price near zero would hardly grow.
    ObservePrefill(prefill_tokens, std::max(seconds - decode_seconds_, seconds / 4));
  } else {
    ObserveBoth(prefill_tokens, seconds);
  }
}

void CostModel::ObservePrefill(std::int32_t prefill_tokens, double seconds) {
  if (prefill_tokens < kMinChunk) return;
  const double sample = seconds / prefill_tokens;
  // The first step may have been slow for reasons of its own.
  if (prefill_samples_ == 1) prefill_token_seconds_ = std::min(prefill_token_seconds_, sample);
  Blend(Plausible(sample, prefill_token_seconds_), &prefill_token_seconds_);
  prefill_samples_ = std::min(prefill_samples_ + 1, kEnough);
}

// Both estimates move by their shares of what was expected (the normalised least mean squares): a
// chunk of one token says nearly nothing about prompts, one of a thousand nearly nothing about
// streams, and an estimate that is far off comes back whatever it makes of the chunks.
void CostModel::ObserveBoth(std::int32_t prefill_tokens, double seconds) {
  const double prefill = prefill_tokens * prefill_token_seconds_;
  const double expected = decode_seconds_ + prefill;
  Blend(std::abs(seconds - expected), &deviation_, kNewestDeviation);
  const double off = kNewest * (Plausible(seconds, expected) / expected - 1);
  decode_seconds_ *= 1 + off * (decode_seconds_ / expected);
  prefill_token_seconds_ *= 1 + off * (prefill / expected);
  prefill_samples_ = kEnough;
}

void CostModel::ObserveTurns(std::int32_t admitted, Duration waited) {
  turn_seconds_ = (1 - kNewest) * turn_seconds_ + ToSeconds(waited);
  turns_ = (1 - kNewest) * turns_ + admitted;
}

void CostModel::Age() {
  old_ = true;
  prefill_samples_ = 0;
}

Duration CostModel::Predict(std::int64_t prefill_tokens, std::int64_t decode_tokens) const {
  if (old_) return Duration::zero();
  const double price = knows_prefill() ? prefill_token_seconds_ : 0;
  return FromSeconds(static_cast<double>(prefill_tokens) * price +
                     static_cast<double>(decode_tokens) * decode_seconds_);
}

double CostModel::PrefillPace(std::int32_t decode_tokens, Duration target,
                              std::int32_t limit) const {
  if (!knows_prefill()) return 0;
  if (decode_tokens == 0) return prefill_token_seconds_;
  return prefill_token_seconds_ + decode_seconds_ / PrefillBudget(decode_tokens, target, limit);
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
