// The load of this server as balancers want it: ORCA reports (Open Request Cost Aggregation), in
// the trailer of a call and beside the calls (service/orca_service.h). Thread-safe.
#ifndef MILLRACE_SERVICE_LOAD_REPORTER_H_
#define MILLRACE_SERVICE_LOAD_REPORTER_H_

#include <grpcpp/support/status.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/mutex.h"
#include "scheduler/engine.h"
#include "xds/data/orca/v3/orca_load_report.pb.h"

namespace millrace {

// The trailer that carries a report.
inline constexpr char kLoadTrailer[] = "endpoint-load-metrics-bin";

// Used blocks of the cache, 0 to 1.
double KvUse(const LoadSnapshot& load);

// How many a second, over the last ten. Not thread-safe.
class RateWindow {
 public:
  explicit RateWindow(TimePoint start) : start_(start) {}
  void Add(TimePoint now);
  double PerSecond(TimePoint now) const;

 private:
  static constexpr std::size_t kSeconds = 10;
  struct Second {
    std::int64_t number = -1;  // since start_
    std::uint64_t count = 0;
  };
  TimePoint start_;
  std::array<Second, kSeconds> seconds_;  // by number modulo kSeconds
};

// `requests` and `errors` are rates a second.
xds::data::orca::v3::OrcaLoadReport MakeLoadReport(const LoadSnapshot& load, double requests,
                                                   double errors);

// `report` as a trailer's bytes, a multiple of three of them: gRPC writes those in base64 without
// the padding that Envoy's decoder asks for, and only so both agree.
std::string SerializeForTrailer(const xds::data::orca::v3::OrcaLoadReport& report);

class LoadReporter {
 public:
  // `clock` outlives the reporter.
  explicit LoadReporter(const Clock* clock) : LoadReporter(*clock, clock->Now()) {}

  // From now on there is a load. `engine` outlives the reporter's use.
  void Serve(const Engine* engine) ABSL_LOCKS_EXCLUDED(mutex_);
  // nullopt while there is no model.
  std::optional<LoadSnapshot> Snapshot() const ABSL_LOCKS_EXCLUDED(mutex_);

  // A Generate call ended so.
  void CountEnded(grpc::StatusCode code) ABSL_LOCKS_EXCLUDED(mutex_);

  xds::data::orca::v3::OrcaLoadReport Report() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // One start for both windows, so that errors are never more than requests.
  LoadReporter(const Clock& clock, TimePoint start)
      : clock_(clock), requests_(start), errors_(start) {}

  const Clock& clock_;
  mutable Mutex mutex_;
  const Engine* engine_ ABSL_GUARDED_BY(mutex_) = nullptr;
  RateWindow requests_ ABSL_GUARDED_BY(mutex_);
  RateWindow errors_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_LOAD_REPORTER_H_
