// Counts every call in and out, so that at every scrape, for each method:
//   requests_received_total = sum over codes of requests_total + requests_in_flight
// Thread-safe; one lock for all of it is what makes the sum hold.
#ifndef MILLRACE_SERVICE_REQUEST_LEDGER_H_
#define MILLRACE_SERVICE_REQUEST_LEDGER_H_

#include <grpcpp/support/status.h>
#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/mutex.h"

namespace millrace {

enum class Method : std::uint8_t {
  kGenerate,
  kTokenize,
  kDetokenize,
  kGetModelInfo,
  kGetLoad,
  kResume
};

class RequestLedger final : public prometheus::Collectable {
 public:
  void Received(Method method) ABSL_LOCKS_EXCLUDED(mutex_);
  // Once for each Received.
  void Answered(Method method, grpc::StatusCode code) ABSL_LOCKS_EXCLUDED(mutex_);

  std::vector<prometheus::MetricFamily> Collect() const override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  static constexpr std::size_t kMethods = 6;
  static constexpr std::size_t kCodes = 17;
  struct Counts {
    std::uint64_t received = 0;
    std::uint64_t in_flight = 0;
    std::array<std::uint64_t, kCodes> answered{};
  };
  mutable Mutex mutex_;
  std::array<Counts, kMethods> methods_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_REQUEST_LEDGER_H_
