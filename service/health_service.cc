#include "service/health_service.h"

#include <deque>
#include <optional>
#include <utility>
#include <vector>

namespace millrace {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr char kGeneration[] = "millrace.v1.GenerationService";

}  // namespace

// One Watch call. Its mutex is never held while gRPC is called.
class HealthService::Watcher final : public grpc::ServerWriteReactor<HealthCheckResponse>,
                                     public std::enable_shared_from_this<Watcher> {
 public:
  Watcher(HealthService* health, std::string service)
      : health_(*health), service_(std::move(service)) {}
  void KeepUntilDone() { self_ = shared_from_this(); }

  const std::string& service() const { return service_; }

  // One more change to tell, in order; Advance sends it.
  void Queue(Status status) {
    MutexLock lock(&mutex_);
    queue_.push_back(status);
  }
  void End(grpc::Status status) {
    {
      MutexLock lock(&mutex_);
      if (!end_) end_ = std::move(status);
    }
    Advance();
  }
  // Starts the next write, or the end, unless a write is on its way.
  void Advance() {
    bool finish = false;
    grpc::Status status;
    {
      MutexLock lock(&mutex_);
      if (writing_ || ended_) return;
      if (!queue_.empty()) {
        message_.set_status(queue_.front());
        queue_.pop_front();
        writing_ = true;
      } else if (end_) {
        finish = ended_ = true;
        status = *end_;
      } else {
        return;
      }
    }
    if (finish) {
      Finish(status);
    } else {
      StartWrite(&message_);
    }
  }

 private:
  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok) queue_.clear();
    }
    Advance();
  }
  void OnCancel() override {
    {
      MutexLock lock(&mutex_);
      queue_.clear();
    }
    End(grpc::Status(grpc::StatusCode::CANCELLED, "the client cancelled"));
  }
  void OnDone() override {
    const std::shared_ptr<Watcher> self = std::move(self_);
    health_.Remove(self);
  }

  HealthService& health_;
  const std::string service_;
  std::shared_ptr<Watcher> self_;  // until OnDone

  Mutex mutex_;
  std::deque<Status> queue_ ABSL_GUARDED_BY(mutex_);
  std::optional<grpc::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  HealthCheckResponse message_;  // being written
};

HealthService::HealthService() {
  services_[""] = HealthCheckResponse::NOT_SERVING;
  services_[kGeneration] = HealthCheckResponse::NOT_SERVING;
  services_["liveness"] = HealthCheckResponse::SERVING;
}

HealthService::~HealthService() = default;

void HealthService::SetReady(bool ready) {
  const Status status = ready ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
  Set("", status);
  Set(kGeneration, status);
}

void HealthService::Set(const std::string& service, Status status) {
  std::vector<std::shared_ptr<Watcher>> told;
  {
    MutexLock lock(&mutex_);
    if (services_[service] == status) return;
    services_[service] = status;
    for (const auto& watcher : watchers_) {
      if (watcher->service() != service) continue;
      // Queued under this lock: every watcher sees the changes in their order.
      watcher->Queue(status);
      told.push_back(watcher);
    }
  }
  for (const auto& watcher : told) watcher->Advance();
}

void HealthService::EndWatches() {
  std::set<std::shared_ptr<Watcher>> watchers;
  {
    MutexLock lock(&mutex_);
    ended_ = true;
    watchers = watchers_;
  }
  for (const auto& watcher : watchers) {
    watcher->End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is going down"));
  }
}

void HealthService::Remove(const std::shared_ptr<Watcher>& watcher) {
  MutexLock lock(&mutex_);
  watchers_.erase(watcher);
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context,
                                               const HealthCheckRequest* request,
                                               HealthCheckResponse* response) {
  grpc::Status status(grpc::StatusCode::NOT_FOUND, "no such service");
  {
    MutexLock lock(&mutex_);
    const auto found = services_.find(request->service());
    if (found != services_.end()) {
      response->set_status(found->second);
      status = grpc::Status::OK;
    }
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(
    grpc::CallbackServerContext*, const HealthCheckRequest* request) {
  const auto watcher = std::make_shared<Watcher>(this, request->service());
  watcher->KeepUntilDone();
  Status now = HealthCheckResponse::SERVICE_UNKNOWN;
  bool ended;
  {
    // Under one lock, so that no change falls between what is told now and what is told later.
    MutexLock lock(&mutex_);
    const auto found = services_.find(request->service());
    if (found != services_.end()) now = found->second;
    watchers_.insert(watcher);
    ended = ended_;
    watcher->Queue(now);
  }
  watcher->Advance();
  if (ended) watcher->End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is going down"));
  return watcher.get();
}

}  // namespace millrace
