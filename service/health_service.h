// grpc.health.v1.Health: Check, and a Watch that follows every change. Our own and not the
// library's, because that one says SERVING from the first moment a port is open, before the model
// is loaded (docs/adr/0005-own-health-service.md). Thread-safe.
#ifndef MILLRACE_SERVICE_HEALTH_SERVICE_H_
#define MILLRACE_SERVICE_HEALTH_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <map>
#include <memory>
#include <set>
#include <string>

#include "base/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace millrace {

class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;

  // Services: "" and millrace.v1.GenerationService, NOT_SERVING at first; "liveness", SERVING.
  HealthService();
  ~HealthService() override;

  // Readiness: "" and millrace.v1.GenerationService.
  void SetReady(bool ready);
  // Ends every Watch, so that the server can shut down.
  void EndWatches();

 private:
  class Watcher;

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;
  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthCheckRequest* request) override;

  void Set(const std::string& service, Status status);
  void Remove(const std::shared_ptr<Watcher>& watcher);

  Mutex mutex_;
  std::map<std::string, Status> services_ ABSL_GUARDED_BY(mutex_);
  std::set<std::shared_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_HEALTH_SERVICE_H_
