#include "service/orca_service.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace millrace {
namespace {

using xds::service::orca::v3::OrcaLoadReportRequest;

// Longer than any balancer trusts a report, and far from the end of what nanoseconds can count.
constexpr Duration kMaxReportInterval = std::chrono::hours(24);

}  // namespace

Duration ReportInterval(const OrcaLoadReportRequest& request) {
  if (!request.has_report_interval()) return kDefaultReportInterval;
  const double seconds = static_cast<double>(request.report_interval().seconds()) +
                         static_cast<double>(request.report_interval().nanos()) * 1e-9;
  return FromSeconds(
      std::clamp(seconds, ToSeconds(kMinReportInterval), ToSeconds(kMaxReportInterval)));
}

// One call: a report, the wait for the timer, the next report.
class OrcaService::ReportStream final : public PushStream<Report> {
 public:
  ReportStream(PushStreams<Report>* streams, const LoadReporter* reporter, Duration interval)
      : PushStream(streams), reporter_(*reporter), interval_(interval) {}

 private:
  // The stream is held until the timer has rung or was cancelled, so that nothing of the service is
  // used after the call is done.
  void OnSent() override {
    if (!Hold()) return;
    // A new one each time: the last one's function may still be returning.
    const auto timer = std::make_shared<grpc::Alarm>();
    SetTimer(timer);
    timer->Set(std::chrono::system_clock::now() + interval_,
               // Once called it forgets the stream, which has the timer, which has the function.
               [self = shared_from_this(), this](bool rang) mutable {
                 const auto stream = std::move(self);
                 if (rang) Put(reporter_.Report());
                 Release();
               });
    // An end that came meanwhile may have cancelled a timer that was not set yet.
    if (ending()) timer->Cancel();
  }
  void OnEnding() override {
    if (const auto timer = SetTimer(nullptr)) timer->Cancel();
  }

  // Returns the one before.
  std::shared_ptr<grpc::Alarm> SetTimer(std::shared_ptr<grpc::Alarm> timer) {
    MutexLock lock(&timer_mutex_);
    return std::exchange(timer_, std::move(timer));
  }

  const LoadReporter& reporter_;
  const Duration interval_;
  Mutex timer_mutex_;
  std::shared_ptr<grpc::Alarm> timer_ ABSL_GUARDED_BY(timer_mutex_);
};

grpc::ServerWriteReactor<OrcaService::Report>* OrcaService::StreamCoreMetrics(
    grpc::CallbackServerContext*, const OrcaLoadReportRequest* request) {
  const auto stream =
      std::make_shared<ReportStream>(&streams_, &reporter_, ReportInterval(*request));
  stream->Put(reporter_.Report());
  streams_.Add(stream);
  stream->Advance();
  return stream.get();
}

}  // namespace millrace
