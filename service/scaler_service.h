// externalscaler.ExternalScaler: KEDA asks it how many servers there should be. It answers for this
// server alone (docs/operations.md says how KEDA makes a number of replicas of that). Thread-safe.
#ifndef MILLRACE_SERVICE_SCALER_SERVICE_H_
#define MILLRACE_SERVICE_SCALER_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "externalscaler/externalscaler.grpc.pb.h"
#include "service/load_reporter.h"
#include "service/push_stream.h"

namespace millrace {

class ScalerService final : public externalscaler::ExternalScaler::CallbackService {
 public:
  // `reporter` outlives the service.
  explicit ScalerService(const LoadReporter* reporter) : reporter_(*reporter) {}

  // The engine has published: tells every StreamIsActive that does not know yet what has become of
  // it. Costs a lock when there is none.
  void LoadChanged() ABSL_LOCKS_EXCLUDED(order_);

  // Ends every stream, so that the server can shut down.
  void EndStreams() { streams_.EndAll(); }

 private:
  using Activity = externalscaler::IsActiveResponse;
  class ActivityStream;

  grpc::ServerUnaryReactor* IsActive(grpc::CallbackServerContext* context,
                                     const externalscaler::ScaledObjectRef* request,
                                     Activity* response) override;
  grpc::ServerWriteReactor<Activity>* StreamIsActive(
      grpc::CallbackServerContext* context,
      const externalscaler::ScaledObjectRef* request) override;
  grpc::ServerUnaryReactor* GetMetricSpec(grpc::CallbackServerContext* context,
                                          const externalscaler::ScaledObjectRef* request,
                                          externalscaler::GetMetricSpecResponse* response) override;
  grpc::ServerUnaryReactor* GetMetrics(grpc::CallbackServerContext* context,
                                       const externalscaler::GetMetricsRequest* request,
                                       externalscaler::GetMetricsResponse* response) override;

  // Something runs or waits.
  Activity Active() const;
  absl::Status DoGetMetrics(const externalscaler::GetMetricsRequest& request,
                            externalscaler::GetMetricsResponse* response) const;

  const LoadReporter& reporter_;
  // Held while the state is read and put in line, so that every stream gets the newest last.
  Mutex order_;
  PushStreams<Activity> streams_;
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_SCALER_SERVICE_H_
