// A queue of values between threads that closes and then drains: Close() refuses new items,
// Receive() hands out what is left before it reports the end. Thread-safe; any number of senders
// and receivers. Unbounded by itself: what may pile up is bounded by whoever sends (admission,
// windows of credit), so that no sender ever blocks.
#ifndef MILLRACE_BASE_CHANNEL_H_
#define MILLRACE_BASE_CHANNEL_H_

#include <deque>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/mutex.h"

namespace millrace {

template <typename T>
class Channel {
 public:
  Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // Returns false, and drops `item`, once the channel is closed.
  bool Send(T item) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      if (closed_) return false;
      items_.push_back(std::move(item));
    }
    changed_.NotifyOne();
    return true;
  }

  // Blocks until an item is there or the channel is closed and empty (then nullopt).
  std::optional<T> Receive() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    while (items_.empty() && !closed_) changed_.Wait(&mutex_);
    return PopLocked();
  }

  // Never blocks; nullopt when nothing is there now.
  std::optional<T> TryReceive() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return PopLocked();
  }

  // Blocks as Receive does, at the latest until `deadline`; nullopt then, or at the end.
  std::optional<T> ReceiveUntil(TimePoint deadline) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    while (items_.empty() && !closed_) {
      if (!changed_.WaitUntil(&mutex_, deadline)) break;
    }
    return PopLocked();
  }

  void Close() ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      closed_ = true;
    }
    changed_.NotifyAll();
  }

  // True once closed and empty: nothing will ever come out again.
  bool exhausted() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return closed_ && items_.empty();
  }

 private:
  std::optional<T> PopLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (items_.empty()) return std::nullopt;
    std::optional<T> item(std::move(items_.front()));
    items_.pop_front();
    return item;
  }

  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<T> items_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace millrace

#endif  // MILLRACE_BASE_CHANNEL_H_
