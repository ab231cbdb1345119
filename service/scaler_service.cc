#include "service/scaler_service.h"

#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "service/scaler_load.h"
#include "service/status_mapping.h"

namespace millrace {
namespace {

using externalscaler::GetMetricSpecResponse;
using externalscaler::GetMetricsRequest;
using externalscaler::GetMetricsResponse;
using externalscaler::ScaledObjectRef;

constexpr char kMetric[] = "load";
// What ScalerLoad is at its targets.
constexpr std::int64_t kTarget = 100;

absl::StatusOr<ScalerTargets> TargetsOf(const ScaledObjectRef& object) {
  return ParseScalerTargets(std::map<std::string, std::string>(object.scalermetadata().begin(),
                                                               object.scalermetadata().end()));
}

grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace

// One StreamIsActive call: the state now, then every change.
class ScalerService::ActivityStream final : public PushStream<Activity> {
 public:
  using PushStream::PushStream;

 private:
  bool Repeats(const Activity& next, const Activity& last) const override {
    return next.result() == last.result();
  }
};

ScalerService::Activity ScalerService::Active() const {
  Activity activity;
  const std::optional<LoadSnapshot> load = reporter_.Snapshot();
  activity.set_result(load && load->running + load->waiting > 0);
  return activity;
}

void ScalerService::LoadChanged() {
  const auto streams = streams_.All();
  if (streams.empty()) return;
  {
    MutexLock lock(&order_);
    const Activity activity = Active();
    for (const auto& stream : streams) stream->Put(activity);
  }
  for (const auto& stream : streams) stream->Advance();
}

grpc::ServerUnaryReactor* ScalerService::IsActive(grpc::CallbackServerContext* context,
                                                  const ScaledObjectRef* request,
                                                  Activity* response) {
  *response = Active();
  return Answer(context, TargetsOf(*request).status());
}

grpc::ServerWriteReactor<ScalerService::Activity>* ScalerService::StreamIsActive(
    grpc::CallbackServerContext*, const ScaledObjectRef* request) {
  const auto stream = std::make_shared<ActivityStream>(&streams_);
  // Known before its first message is made: a change from here on is told by LoadChanged.
  streams_.Add(stream);
  const absl::Status status = TargetsOf(*request).status();
  if (!status.ok()) {
    stream->End(ToGrpcStatus(status));
    return stream.get();
  }
  {
    MutexLock lock(&order_);
    stream->Put(Active());
  }
  stream->Advance();
  return stream.get();
}

grpc::ServerUnaryReactor* ScalerService::GetMetricSpec(grpc::CallbackServerContext* context,
                                                       const ScaledObjectRef* request,
                                                       GetMetricSpecResponse* response) {
  externalscaler::MetricSpec* const spec = response->add_metricspecs();
  spec->set_metricname(kMetric);
  spec->set_targetsize(kTarget);
  spec->set_targetsizefloat(static_cast<double>(kTarget));
  return Answer(context, TargetsOf(*request).status());
}

grpc::ServerUnaryReactor* ScalerService::GetMetrics(grpc::CallbackServerContext* context,
                                                    const GetMetricsRequest* request,
                                                    GetMetricsResponse* response) {
  return Answer(context, DoGetMetrics(*request, response));
}

absl::Status ScalerService::DoGetMetrics(const GetMetricsRequest& request,
                                         GetMetricsResponse* response) const {
  MILLRACE_ASSIGN_OR_RETURN(const ScalerTargets targets, TargetsOf(request.scaledobjectref()));
  if (!request.metricname().empty() && request.metricname() != kMetric) {
    return absl::InvalidArgumentError(
        absl::StrCat("metricName is '", request.metricname(), "'; there is ", kMetric));
  }
  const std::optional<LoadSnapshot> load = reporter_.Snapshot();
  // Not 0, which would say that one server is too many.
  if (!load) return absl::UnavailableError("the model is still loading");
  const double value = ScalerLoad(*load, targets);
  externalscaler::MetricValue* const metric = response->add_metricvalues();
  metric->set_metricname(kMetric);
  // Up, so that what is over the target stays over it.
  metric->set_metricvalue(std::llround(std::ceil(value)));
  metric->set_metricvaluefloat(value);
  return absl::OkStatus();
}

}  // namespace millrace
