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

void CostModel::Price::Learn(double sample) {
  sample = Plausible(sample, now);
  if (fresh == 0) {
    now = sample;
  } else if (fresh == 1) {
    now = std::min(now, sample);
  } else {
    Blend(sample, &now);
  }
  fresh = std::min(fresh + 1, kEnough);
  Note();
}

void CostModel::Price::Note() {
  if (fresh == kEnough) lowest = lowest == 0 ? now : std::min(lowest, now);
}

void CostModel::Observe(std::int32_t prefill_tokens, std::int32_t decode_tokens,
                        Duration duration) {
  const double seconds = ToSeconds(duration);
  if (prefill_tokens == 0) {
    decode_.Learn(seconds);
  } else if (decode_tokens > 0 && decode_.now == 0 && prefill_tokens < kMinChunk) {
    decode_.Learn(seconds);  // at most that
  } else if (decode_tokens == 0 || decode_.now == 0) {
    ObservePrefill(prefill_tokens, seconds);
  } else if (prefill_.now == 0 || (prefill_.fresh == 0 && prefill_tokens >= kMinChunk)) {
    // What the streams would have cost by themselves belongs to them, but the prompt had a part: a
    // price near zero would hardly grow.
    ObservePrefill(prefill_tokens, std::max(seconds - decode_.now, seconds / 4));
  } else {
    ObserveBoth(prefill_tokens, seconds);
  }
}

void CostModel::ObservePrefill(std::int32_t prefill_tokens, double seconds) {
  if (prefill_tokens < kMinChunk) return;
  prefill_.Learn(seconds / prefill_tokens);
}

// Both estimates move by their shares of what was expected (the normalised least mean squares): a
// chunk of one token says nearly nothing about prompts, one of a thousand nearly nothing about
// streams, and an estimate that is far off comes back whatever it makes of the chunks.
void CostModel::ObserveBoth(std::int32_t prefill_tokens, double seconds) {
  // An old price of streams is at most what they and a prompt took together.
  if (decode_.fresh == 0) decode_.now = std::min(decode_.now, seconds);
  const double prefill = prefill_tokens * prefill_.now;
  const double expected = decode_.now + prefill;
  Blend(std::abs(seconds - expected), &deviation_, kNewestDeviation);
  const double off = kNewest * (Plausible(seconds, expected) / expected - 1);
  decode_.now *= 1 + off * (decode_.now / expected);
  prefill_.now *= 1 + off * (prefill / expected);
  if (prefill_.fresh > 0) prefill_.fresh = kEnough;
  decode_.Note();
  prefill_.Note();
}

void CostModel::ObserveTurns(std::int32_t admitted, Duration waited) {
  turn_seconds_ = (1 - kNewest) * turn_seconds_ + ToSeconds(waited);
  turns_ = (1 - kNewest) * turns_ + admitted;
}

double CostModel::Fade(Duration silence) {
  return ToSeconds(kKeeps) / std::max(ToSeconds(silence), ToSeconds(kKeeps));
}

void CostModel::Age(Duration silence) {
  for (Price* const price : {&decode_, &prefill_}) {
    price->fresh = 0;
    price->fade = Fade(silence);
  }
}

Duration CostModel::Predict(std::int64_t prefill_tokens, std::int64_t decode_tokens) const {
  return FromSeconds(static_cast<double>(prefill_tokens) * prefill_.Judged() +
                     static_cast<double>(decode_tokens) * decode_.Judged());
}

double CostModel::PrefillPace(std::int32_t decode_tokens, Duration target,
                              std::int32_t limit) const {
  if (prefill_.fresh < kEnough) return 0;
  if (decode_tokens == 0) return prefill_.now;
  return prefill_.now + decode_.now / PrefillBudget(decode_tokens, target, limit);
}

std::int32_t CostModel::PrefillBudget(std::int32_t decode_tokens, Duration target,
                                      std::int32_t limit) const {
  if (decode_tokens == 0 || prefill_.now == 0 || target <= Duration::zero()) return limit;
  // Twice an estimate is off by twice its error.
  const double goal = std::max(ToSeconds(target), 2 * decode_.now - deviation_);
  const double left = goal - kDeviations * deviation_ - decode_.now;
  const double tokens = std::clamp(left / prefill_.now, 0.0, static_cast<double>(limit));
  return std::max(1, static_cast<std::int32_t>(tokens));
}

}  // namespace millrace
