// When the tokens of a load came: counts by tick, of which there are never more than kMostTicks,
// however long it lasts. Not thread-safe.
#ifndef MILLRACE_CLI_TOKEN_TIMELINE_H_
#define MILLRACE_CLI_TOKEN_TIMELINE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace millrace::cli {

class TokenTimeline {
 public:
  // 32 KiB, and at least ten ticks for each point of a plot.
  static constexpr std::size_t kMostTicks = 4096;
  static constexpr double kFirstTickSeconds = 0.1;

  // `seconds` since the beginning, at least 0. Ticks become twice as long when there are too many.
  void Add(double seconds, std::uint64_t tokens);

  double tick_seconds() const { return tick_seconds_; }
  // From the beginning to the last token that came.
  const std::vector<std::uint64_t>& ticks() const { return ticks_; }

 private:
  void MergePairs();

  double tick_seconds_ = kFirstTickSeconds;
  std::vector<std::uint64_t> ticks_;
};

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_TOKEN_TIMELINE_H_
