#include "base/thread_governor.h"

#include <algorithm>

namespace millrace {
namespace {

using std::chrono::milliseconds;

// Below a scheduler's time slice (3 ms on Linux), above what uneven tasks cost.
constexpr Duration kPreempted = std::chrono::microseconds{500};
// Many time slices: a host that takes a core away for 5 ms ten times a second costs a twentieth,
// and a thread less costs more.
constexpr Duration kWindow = milliseconds{50};
// The first window of a try with one thread more: a core that is still taken shows in its first
// time slices, and a try that ends too early is soon repeated.
constexpr Duration kTrial = milliseconds{10};
// Of a window; with one of two threads at half a core, half the time is spent waiting.
constexpr int kTooMuch = 4;  // a quarter
// A core that is gone for a moment costs little; one that stays away soon costs a try a second,
// a hundredth of the time.
constexpr Duration kFirstPause = milliseconds{20};
constexpr Duration kLongestPause = milliseconds{1000};

}  // namespace

void ThreadGovernor::Note(TimePoint now, Duration waited) {
  if (now - window_end_ > kWindow) {
    BeginWindow(now, kWindow);  // nothing ran, or one long run: what was before says nothing now
  } else if (waited > kPreempted) {
    waited_ += waited;
  }
  window_end_ = now;
  const Duration window = std::max<Duration>(window_, now - window_begin_);
  if (waited_ > window / kTooMuch && active_ > 1) return Drop(now);
  if (now - window_begin_ >= window_) {
    BeginWindow(now, kWindow);
    if (now >= try_again_ + kLongestPause) pause_ = Duration{0};  // all is well for some time
  }
  if (active_ < threads_ && now >= try_again_) {
    ++active_;
    // The others one by one, as long as it goes well.
    BeginWindow(now, kTrial);
    try_again_ = now + pause_;
  }
}

void ThreadGovernor::BeginWindow(TimePoint now, Duration length) {
  window_begin_ = now;
  window_ = length;
  waited_ = Duration{0};
}

void ThreadGovernor::Drop(TimePoint now) {
  --active_;
  BeginWindow(now, kWindow);
  pause_ = std::clamp<Duration>(2 * pause_, kFirstPause, kLongestPause);
  try_again_ = now + pause_;
}

}  // namespace millrace
