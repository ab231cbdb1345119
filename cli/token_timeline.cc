#include "cli/token_timeline.h"

namespace millrace::cli {

void TokenTimeline::Add(double seconds, std::uint64_t tokens) {
  auto tick = static_cast<std::size_t>(seconds / tick_seconds_);
  for (; tick >= kMostTicks; tick /= 2) MergePairs();
  if (tick >= ticks_.size()) ticks_.resize(tick + 1);
  ticks_[tick] += tokens;
}

void TokenTimeline::MergePairs() {
  tick_seconds_ *= 2;
  const std::size_t halves = (ticks_.size() + 1) / 2;
  for (std::size_t i = 0; i < halves; ++i) {
    const std::uint64_t second = 2 * i + 1 < ticks_.size() ? ticks_[2 * i + 1] : 0;
    ticks_[i] = ticks_[2 * i] + second;
  }
  ticks_.resize(halves);
}

}  // namespace millrace::cli
