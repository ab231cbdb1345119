// How long a step takes, learned from the steps there were: so that prompts are cut into chunks
// that leave running streams their pace. A value; not thread-safe.
#ifndef MILLRACE_SCHEDULER_COST_MODEL_H_
#define MILLRACE_SCHEDULER_COST_MODEL_H_

#include <cstdint>

#include "base/clock.h"

namespace millrace {

class CostModel {
 public:
  // Learns from one step: time ~ decode time + prefill_tokens * time of a prompt token.
  void Observe(std::int32_t prefill_tokens, std::int32_t decode_tokens, Duration duration);

  // The most prompt tokens for a step with `decode_tokens` running streams to stay within `target`;
  // at least kMinChunk, so that prompts always get on.
  std::int32_t PrefillBudget(std::int32_t decode_tokens, Duration target, std::int32_t limit) const;

  // Less would spend most of a step on reading weights for few rows; one block of 16 rows fills the
  // kernels' tile.
  static constexpr std::int32_t kMinChunk = 16;

 private:
  double decode_seconds_ = 0;         // of a step without prompt tokens; 0: not known
  double prefill_token_seconds_ = 0;  // 0: not known
};

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_COST_MODEL_H_
