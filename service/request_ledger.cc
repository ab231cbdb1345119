#include "service/request_ledger.h"

#include <string>

#include "service/metric_families.h"
#include "service/status_mapping.h"

namespace millrace {
namespace {

constexpr std::array<std::string_view, 6> kMethodNames = {"Generate",     "Tokenize", "Detokenize",
                                                          "GetModelInfo", "GetLoad",  "Resume"};

}  // namespace

void RequestLedger::Received(Method method) {
  MutexLock lock(&mutex_);
  Counts& counts = methods_[static_cast<std::size_t>(method)];
  ++counts.received;
  ++counts.in_flight;
}

void RequestLedger::Answered(Method method, grpc::StatusCode code) {
  auto index = static_cast<std::size_t>(code);
  if (index >= kCodes) index = static_cast<std::size_t>(grpc::StatusCode::UNKNOWN);
  MutexLock lock(&mutex_);
  Counts& counts = methods_[static_cast<std::size_t>(method)];
  --counts.in_flight;
  ++counts.answered[index];
}

std::vector<prometheus::MetricFamily> RequestLedger::Collect() const {
  std::array<Counts, kMethods> methods;
  {
    MutexLock lock(&mutex_);
    methods = methods_;
  }
  auto received = CounterFamily("millrace_requests_received_total", "Calls that arrived");
  auto answered = CounterFamily("millrace_requests_total", "Calls that ended, by status");
  auto in_flight = GaugeFamily("millrace_requests_in_flight", "Calls that have not ended");
  for (std::size_t m = 0; m < kMethods; ++m) {
    const std::string name(kMethodNames[m]);
    AddCounter(&received, {{"method", name}}, static_cast<double>(methods[m].received));
    AddGauge(&in_flight, {{"method", name}}, static_cast<double>(methods[m].in_flight));
    for (std::size_t c = 0; c < kCodes; ++c) {
      // OK is always there, so that a share of the calls that ended has something to divide by.
      if (methods[m].answered[c] == 0 && c != 0) continue;
      const std::string code(CodeName(static_cast<grpc::StatusCode>(c)));
      AddCounter(&answered, {{"method", name}, {"code", code}},
                 static_cast<double>(methods[m].answered[c]));
    }
  }
  return {received, answered, in_flight};
}

}  // namespace millrace
