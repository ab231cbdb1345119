// Streams that the server pushes messages into when something happens, and not as an answer to a
// reader's pace: each keeps the newest message that waits for the one being written, so that a slow
// reader misses some and holds nothing up.
//
// Thread-safe. A stream's mutex is never held while gRPC is called. A stream is owned by its
// PushStreams until gRPC is done with it, and by whoever else holds a shared pointer.
#ifndef MILLRACE_SERVICE_PUSH_STREAM_H_
#define MILLRACE_SERVICE_PUSH_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace millrace {

template <typename Message>
class PushStreams;

template <typename Message>
class PushStream : public grpc::ServerWriteReactor<Message>,
                   public std::enable_shared_from_this<PushStream<Message>> {
 public:
  // `streams` outlives the call.
  explicit PushStream(PushStreams<Message>* streams) : streams_(*streams) {}

  // The next message, in the place of one that still waits; Advance sends it.
  void Put(Message message) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (begun_ && Repeats(message, message_)) {
      next_.reset();
    } else {
      next_ = std::move(message);
    }
  }

  // Ends the stream with `status` once what is being written is out; the first one counts.
  void End(grpc::Status status) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      if (!end_) end_ = std::move(status);
    }
    OnEnding();
    Advance();
  }

  // Starts the next write, or the end, if it is time.
  void Advance() ABSL_LOCKS_EXCLUDED(mutex_) {
    bool finish = false;
    grpc::Status status;
    {
      MutexLock lock(&mutex_);
      if (writing_ || finished_) return;
      if (end_) {
        if (held_) return;
        finish = finished_ = true;
        status = *end_;
      } else if (next_) {
        message_ = *std::exchange(next_, std::nullopt);
        begun_ = writing_ = true;
      } else {
        return;
      }
    }
    if (finish) {
      this->Finish(status);
    } else {
      this->StartWrite(&message_);
    }
  }

 protected:
  // A message is out; the next may be thought of.
  virtual void OnSent() {}
  // The stream is about to end: what Hold was called for should come to its Release.
  virtual void OnEnding() {}
  // `next` says nothing that `last`, which was sent before it, did not: it need not be sent.
  virtual bool Repeats(const Message& next, const Message& last) const { return false; }

  // Keeps the stream from ending until Release; false when it is about to end.
  bool Hold() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (end_) return false;
    held_ = true;
    return true;
  }
  void Release() ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      held_ = false;
    }
    Advance();
  }
  bool ending() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return end_.has_value();
  }

 private:
  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(&mutex_);
      writing_ = false;
    }
    if (ok) OnSent();
    Advance();
  }
  void OnCancel() override {
    End(grpc::Status(grpc::StatusCode::CANCELLED, "the client cancelled"));
  }
  void OnDone() override { streams_.Remove(this->shared_from_this()); }

  PushStreams<Message>& streams_;
  mutable Mutex mutex_;
  std::optional<Message> next_ ABSL_GUARDED_BY(mutex_);
  std::optional<grpc::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;  // a message was written, or is
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  Message message_;  // being written, or written last; changed only while nothing is
};

// All open streams of a method.
template <typename Message>
class PushStreams {
 public:
  using Stream = PushStream<Message>;

  // Owns `stream` until it is done. After EndAll it ends at once.
  void Add(const std::shared_ptr<Stream>& stream) ABSL_LOCKS_EXCLUDED(mutex_) {
    bool ended;
    {
      MutexLock lock(&mutex_);
      open_.insert(stream);
      ended = ended_;
    }
    if (ended) stream->End(GoingDown());
  }

  std::vector<std::shared_ptr<Stream>> All() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return {open_.begin(), open_.end()};
  }

  // Ends all streams, so that the server can shut down.
  void EndAll() ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      ended_ = true;
    }
    for (const auto& stream : All()) stream->End(GoingDown());
  }

 private:
  friend class PushStream<Message>;

  static grpc::Status GoingDown() {
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is going down");
  }
  void Remove(const std::shared_ptr<Stream>& stream) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    open_.erase(stream);
  }

  mutable Mutex mutex_;
  std::set<std::shared_ptr<Stream>> open_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_PUSH_STREAM_H_
