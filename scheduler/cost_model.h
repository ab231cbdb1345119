// How long a step takes, learned from the steps there were: so that prompts are cut into chunks
// that leave running streams their pace. A value; not thread-safe.
#ifndef MILLRACE_SCHEDULER_COST_MODEL_H_
#define MILLRACE_SCHEDULER_COST_MODEL_H_

#include <chrono>
#include <cstdint>

#include "base/clock.h"

namespace millrace {

class CostModel {
 public:
  // Learns from one step: time ~ decode time + prefill_tokens * time of a prompt token. One step
  // that took far longer than expected (a stolen core, a cold file) counts as one that took twice
  // as long.
  void Observe(std::int32_t prefill_tokens, std::int32_t decode_tokens, Duration duration);

  // The most prompt tokens for a step with `decode_tokens` running streams to stay within `target`,
  // or twice a step without any where that is longer, as far as times can be told beforehand; at
  // least one, so that prompts always get on.
  std::int32_t PrefillBudget(std::int32_t decode_tokens, Duration target, std::int32_t limit) const;

  // So many sequences were admitted in the `waited` since others were, while sequences waited.
  void ObserveTurns(std::int32_t admitted, Duration waited);

  // Nothing ran for `silence`, kKeeps or longer. Until two steps tell them anew, prices are the
  // lowest that they ever were, times Fade(silence): judged by one that was too high, a call is
  // refused that would have corrected it, so sooner or later every call is let in.
  void Age(Duration silence);
  static double Fade(Duration silence);

  // How long `prefill_tokens` of prompts and then `decode_tokens` steps take, one after the other,
  // if steps do nothing else; zero while nothing is known, so that nobody is judged by a guess.
  Duration Predict(std::int64_t prefill_tokens, std::int64_t decode_tokens) const;

  // Seconds for a prompt token where chunks are cut for `decode_tokens` streams as PrefillBudget
  // says: how fast prompts really get on. 0: not known.
  double PrefillPace(std::int32_t decode_tokens, Duration target, std::int32_t limit) const;
  double decode_seconds() const { return decode_.now; }
  // That prices ever were. 0: not known.
  double lowest_prefill_seconds() const { return prefill_.lowest; }
  double lowest_decode_seconds() const { return decode_.lowest; }
  // Between two admissions while sequences wait. 0: not known.
  double seconds_per_turn() const { return turns_ == 0 ? 0 : turn_seconds_ / turns_; }

  // A smaller chunk without streams beside it says little about what a token costs: the step is
  // spent on reading weights.
  static constexpr std::int32_t kMinChunk = 16;
  // So long a silence is an exception under load, and short enough for a caller that tries again.
  static constexpr Duration kKeeps = std::chrono::seconds(5);

 private:
  // The first step after a start or a silence may be slow for reasons of its own: nobody is judged
  // by it alone, and the lower of the first two counts.
  static constexpr std::int32_t kEnough = 2;

  // In seconds.
  struct Price {
    double now = 0;          // 0: not known
    double lowest = 0;       // 0: not known
    std::int32_t fresh = 0;  // samples since the start or a silence, up to kEnough
    double fade = 1;         // of the lowest, after a silence

    double Judged() const { return fresh < kEnough ? lowest * fade : now; }
    void Learn(double sample);
    void Note();  // that `now` has changed
  };

  void ObserveBoth(std::int32_t prefill_tokens, double seconds);
  void ObservePrefill(std::int32_t prefill_tokens, double seconds);

  Price decode_;          // of a step without prompt tokens
  Price prefill_;         // of a prompt token
  double deviation_ = 0;  // of steps with both from what was expected, on average
  double turn_seconds_ = 0;
  double turns_ = 0;
};

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_COST_MODEL_H_
