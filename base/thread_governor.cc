#include "base/thread_governor.h"

#include <algorithm>

namespace millrace {
namespace {

using std::chrono::milliseconds;

// Below a scheduler's time slice (3 ms on Linux), above what uneven tasks cost.
constexpr Duration kPreempted = std::chrono::microseconds{500};
// The part of the time that may be spent waiting; with one of two threads at half a core, half of
// it is. A host that takes a core away for 5 ms ten times a second costs a twentieth, and a thread
// less costs more.
constexpr int kMayWait = 4;  // a quarter
// What may be waited beyond that: three time slices that follow each other, or a long one alone.
constexpr Duration kTooMuch = milliseconds{10};
// After a try with one thread more, for some time slices: a core that is still taken shows in the
// first, and a try that ends too early is soon repeated.
constexpr Duration kTooMuchInTrial = std::chrono::microseconds{2500};
constexpr Duration kTrial = milliseconds{10};
// A core that is gone for a moment costs little; one that stays away soon costs a try a second,
// a hundredth of the time.
constexpr Duration kFirstPause = milliseconds{20};
constexpr Duration kLongestPause = milliseconds{1000};

}  // namespace

void ThreadGovernor::Note(TimePoint now, Duration waited) {
  excess_ += waited > kPreempted ? waited : Duration{0};
  excess_ = std::max(Duration{0}, excess_ - (now - last_) / kMayWait);
  last_ = now;
  const Duration too_much = now < trial_end_ ? kTooMuchInTrial : kTooMuch;
  if (excess_ > too_much && active_ > 1) return Drop(now);
  if (now >= try_again_ + kLongestPause) pause_ = Duration{0};  // all is well for some time
  if (active_ == threads_ || now < try_again_) return;
  ++active_;
  excess_ = Duration{0};
  trial_end_ = now + kTrial;
  try_again_ = now + pause_;  // the others one by one, as long as it goes well
}

void ThreadGovernor::Drop(TimePoint now) {
  --active_;
  excess_ = Duration{0};
  pause_ = std::clamp<Duration>(2 * pause_, kFirstPause, kLongestPause);
  try_again_ = now + pause_;
}

}  // namespace millrace
