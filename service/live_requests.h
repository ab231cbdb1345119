// The requests that live right now: the engine's ids with the sinks their tokens go to, and the
// callers' names, each taken by one live request at most. Thread-safe.
#ifndef MILLRACE_SERVICE_LIVE_REQUESTS_H_
#define MILLRACE_SERVICE_LIVE_REQUESTS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/strong_id.h"
#include "service/token_sink.h"

namespace millrace {

struct LiveRequest {
  std::string name;  // the caller's request_id
  TimePoint arrival;
  std::shared_ptr<TokenSink> sink;
};

class LiveRequests {
 public:
  // A new id for `request`; nullopt when its name is taken by a live one.
  std::optional<RequestId> Add(LiveRequest request) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (!names_.insert(request.name).second) return std::nullopt;
    const RequestId id(++last_id_);
    requests_.emplace(id, std::move(request));
    return id;
  }

  std::optional<LiveRequest> Find(RequestId id) const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    const auto found = requests_.find(id);
    if (found == requests_.end()) return std::nullopt;
    return found->second;
  }

  // The name is free again.
  void Remove(RequestId id) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    const auto found = requests_.find(id);
    if (found == requests_.end()) return;
    names_.erase(found->second.name);
    requests_.erase(found);
  }

 private:
  mutable Mutex mutex_;
  std::uint64_t last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unordered_map<RequestId, LiveRequest> requests_ ABSL_GUARDED_BY(mutex_);
  std::unordered_set<std::string> names_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_LIVE_REQUESTS_H_
