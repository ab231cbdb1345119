// xds.service.orca.v3.OpenRcaService: load reports beside the calls, one every interval of the
// caller's, by a timer of gRPC's for each. Thread-safe.
#ifndef MILLRACE_SERVICE_ORCA_SERVICE_H_
#define MILLRACE_SERVICE_ORCA_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <memory>

#include "base/clock.h"
#include "service/load_reporter.h"
#include "service/push_stream.h"
#include "xds/service/orca/v3/orca.grpc.pb.h"

namespace millrace {

// What a caller gets that asks for less, or for nothing.
inline constexpr Duration kMinReportInterval = std::chrono::milliseconds(100);
inline constexpr Duration kDefaultReportInterval = std::chrono::seconds(10);

// The interval that `request` gets: kDefaultReportInterval where it names none.
Duration ReportInterval(const xds::service::orca::v3::OrcaLoadReportRequest& request);

class OrcaService final : public xds::service::orca::v3::OpenRcaService::CallbackService {
 public:
  // `reporter` outlives the service.
  explicit OrcaService(const LoadReporter* reporter) : reporter_(*reporter) {}

  // Ends every stream, so that the server can shut down.
  void EndStreams() { streams_.EndAll(); }

 private:
  using Report = xds::data::orca::v3::OrcaLoadReport;
  class ReportStream;

  grpc::ServerWriteReactor<Report>* StreamCoreMetrics(
      grpc::CallbackServerContext* context,
      const xds::service::orca::v3::OrcaLoadReportRequest* request) override;

  const LoadReporter& reporter_;
  PushStreams<Report> streams_;
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_ORCA_SERVICE_H_
