// The way into the engine: submissions of requests until it is closed, cancels and credits always.
// Thread-safe.
#ifndef MILLRACE_SCHEDULER_SUBMISSION_CHANNEL_H_
#define MILLRACE_SCHEDULER_SUBMISSION_CHANNEL_H_

#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "scheduler/request.h"

namespace millrace {

class SubmissionChannel {
 public:
  // False, and the request is not taken, once the channel is closed.
  bool Submit(Request request) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      if (closed_) return false;
      items_.push_back(SubmitRequest{std::move(request)});
    }
    changed_.NotifyOne();
    return true;
  }

  // Cancels and credits: never refused.
  void Control(Submission submission) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      items_.push_back(std::move(submission));
    }
    changed_.NotifyOne();
  }

  // From now on no requests are taken; a receiver that waits wakes up. `deadline` is when the rest
  // is cut off.
  void Close(TimePoint deadline) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      closed_ = true;
      if (deadline < drain_deadline_) drain_deadline_ = deadline;
      woken_ = true;
    }
    changed_.NotifyOne();
  }

  struct Batch {
    std::vector<Submission> submissions;
    bool closed = false;
    TimePoint drain_deadline = kNoDeadline;
  };

  // All that is there now; with `wait`, blocks until there is something, the channel is closed, or
  // `deadline`.
  Batch Receive(bool wait, TimePoint deadline) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    while (wait && items_.empty() && !woken_) {
      if (!changed_.WaitUntil(&mutex_, deadline)) break;
    }
    woken_ = false;
    return {std::exchange(items_, {}), closed_, drain_deadline_};
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<Submission> items_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  TimePoint drain_deadline_ ABSL_GUARDED_BY(mutex_) = kNoDeadline;
};

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_SUBMISSION_CHANNEL_H_
