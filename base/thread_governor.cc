#include "base/thread_governor.h"

#include <algorithm>

namespace millrace {
namespace {

using std::chrono::milliseconds;

// Below a scheduler's time slice (3 ms on Linux), above what uneven tasks cost.
constexpr Duration kPreempted = std::chrono::microseconds{500};
// One part in so many of the time may be spent waiting; with one of two threads at half a core,
// half of it is. A host that takes one of two cores away for 5 ms ten times a second costs a
// twentieth, and to go on with the other one costs more.
constexpr int kTimePerWait = 4;
// What may be waited beyond that: four time slices that follow each other, or a long one alone.
constexpr Duration kTooMuch = milliseconds{10};
// The same during a try with one thread more: a core that is still taken shows in its first time
// slices, and a try that ends too early is soon repeated.
constexpr Duration kTooMuchInTrial = std::chrono::microseconds{2500};
constexpr Duration kTrial = milliseconds{10};
// A core that is gone for a moment costs little; one that stays away soon costs a try a second,
// a hundredth of the time.
constexpr Duration kFirstPause = milliseconds{20};
constexpr Duration kLongestPause = milliseconds{1000};

}  // namespace

void ThreadGovernor::Note(TimePoint now, Duration waited) {
  const TimePoint begin = last_;  // of this run, or of the time before it in which nothing ran
  last_ = now;
  excess_ += waited > kPreempted ? waited : Duration{0};
  excess_ = std::max(Duration{0}, excess_ - (now - begin) / kTimePerWait);
  if (trying_ && begin >= trial_end_) {  // it went well: the others one by one
    trying_ = false;
    try_again_ = now;
  }
  if (excess_ > (trying_ ? kTooMuchInTrial : kTooMuch) && active_ > 1) return Drop(now);
  if (!trying_ && active_ < threads_ && now >= try_again_) Try(now);
}

void ThreadGovernor::Try(TimePoint now) {
  ++active_;
  excess_ = Duration{0};
  trying_ = true;
  trial_end_ = now + kTrial;
}

void ThreadGovernor::Drop(TimePoint now) {
  --active_;
  excess_ = Duration{0};
  trying_ = false;
  // A trial may miss what takes the core: only a second that went well after it says that all is.
  const bool anew = now >= trial_end_ + kLongestPause;
  pause_ = anew ? kFirstPause : std::clamp<Duration>(2 * pause_, kFirstPause, kLongestPause);
  try_again_ = now + pause_;
}

}  // namespace millrace
