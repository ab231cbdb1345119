// Decides how many threads of a pool take part in its runs. Threads that meet at a barrier after
// every fraction of a millisecond are as slow as the one that lost its core to another process; so
// while that happens it is faster to go on with one thread less, and to try again later.
//
// A thread that waits for more than kPreempted is taken to wait for one without a core: tasks are
// shorter than that, or the run is much longer. Not thread-safe; a value without a clock.
#ifndef MILLRACE_BASE_THREAD_GOVERNOR_H_
#define MILLRACE_BASE_THREAD_GOVERNOR_H_

#include "base/clock.h"

namespace millrace {

class ThreadGovernor {
 public:
  // Starts with all `threads`; >= 1.
  explicit ThreadGovernor(int threads) : threads_(threads), active_(threads) {}

  // Threads of the next run.
  int active() const { return active_; }

  // A run of active() threads ended at `now`; all in all the first that had nothing to do `waited`
  // for the others, at its end and inside of it.
  void Note(TimePoint now, Duration waited);

 private:
  void Try(TimePoint now);
  void Drop(TimePoint now);

  const int threads_;
  int active_;
  TimePoint last_{};    // the end of the last run; of none, so long ago that its waits are forgiven
  Duration excess_{0};  // waited for threads without a core, beyond what may be; never below zero
  bool trying_ = false;  // one thread more, for runs that begin before trial_end_
  TimePoint trial_end_{};
  TimePoint try_again_{};
  Duration pause_{0};  // before the next try; doubles until one goes well for some time
};

}  // namespace millrace

#endif  // MILLRACE_BASE_THREAD_GOVERNOR_H_
