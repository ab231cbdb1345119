#include "base/thread_governor.h"

#include <algorithm>

namespace millrace {
namespace {

using std::chrono::milliseconds;

// Below a scheduler's time slice (3 ms on Linux), above what uneven tasks cost.
constexpr Duration kPreempted = std::chrono::microseconds{500};
// A few time slices.
constexpr Duration kWindow = milliseconds{10};
// Of a window; with one of two threads at half a core, half the time is spent waiting.
constexpr double kTooMuch = 0.25;
// A core that is gone for a moment costs little; one that stays away soon costs a try a second,
// which is about a window, a hundredth of the time.
constexpr Duration kFirstPause = milliseconds{20};
constexpr Duration kLongestPause = milliseconds{1000};

}  // namespace

void ThreadGovernor::Note(TimePoint now, Duration waited) {
  if (now - window_end_ > kWindow) {  // nothing ran: what was seen before says nothing now
    window_begin_ = now;
    waited_ = Duration{0};
  }
  window_end_ = now;
  if (waited > kPreempted) waited_ += waited;
  if (now - window_begin_ >= kWindow) {
    const bool preempted = ToSeconds(waited_) > kTooMuch * ToSeconds(now - window_begin_);
    window_begin_ = now;
    waited_ = Duration{0};
    if (preempted && active_ > 1) return Drop(now);
    if (now >= try_again_ + kLongestPause) pause_ = Duration{0};  // all is well for some time
  }
  if (active_ < threads_ && now >= try_again_) {
    ++active_;
    // The others one by one, as long as it goes well.
    window_begin_ = now;
    waited_ = Duration{0};
    try_again_ = now + pause_;
  }
}

void ThreadGovernor::Drop(TimePoint now) {
  --active_;
  pause_ = std::clamp<Duration>(2 * pause_, kFirstPause, kLongestPause);
  try_again_ = now + pause_;
}

}  // namespace millrace
