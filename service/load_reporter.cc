#include "service/load_reporter.h"

#include <algorithm>
#include <chrono>

namespace millrace {
namespace {

using xds::data::orca::v3::OrcaLoadReport;

double Share(std::int64_t part, std::int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

// What the server is to blame for. A balancer sends less to who fails more: without the refusals, a
// full server that refuses at once would look like a fast one.
bool IsError(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DATA_LOSS:
      return true;
    default:
      return false;
  }
}

// Above 1 when requests wait: of two full servers the one with the shorter queue is the better. And
// never below one place, which the call that brings a report had itself: 0 stands for "not set",
// and balancers pass such a report over, so that a server which is idle at the end of each of its
// calls would never be known as one.
double Utilization(const LoadSnapshot& load) {
  const int places = std::max(load.running + load.waiting, 1);
  return std::max(KvUse(load), Share(places, load.max_running));
}

}  // namespace

double KvUse(const LoadSnapshot& load) { return Share(load.kv_blocks_used, load.kv_blocks_total); }

void RateWindow::Add(TimePoint now) {
  const std::int64_t number = std::chrono::floor<std::chrono::seconds>(now - start_).count();
  Second& second = seconds_[static_cast<std::size_t>(number) % kSeconds];
  if (second.number != number) second = {.number = number};
  ++second.count;
}

double RateWindow::PerSecond(TimePoint now) const {
  const double since_start = ToSeconds(now - start_);
  const std::int64_t number = std::chrono::floor<std::chrono::seconds>(now - start_).count();
  const std::int64_t oldest = number - static_cast<std::int64_t>(kSeconds) + 1;
  std::uint64_t count = 0;
  for (const Second& second : seconds_) {
    if (second.number >= std::max<std::int64_t>(oldest, 0)) count += second.count;
  }
  // The seconds looked at, the last of them not whole; at least one, for a rate that means
  // something.
  const double covered = since_start - static_cast<double>(std::max<std::int64_t>(oldest, 0));
  return static_cast<double>(count) / std::max(covered, 1.0);
}

OrcaLoadReport MakeLoadReport(const LoadSnapshot& load, double requests, double errors) {
  const double kv = KvUse(load);
  OrcaLoadReport report;
  report.set_application_utilization(Utilization(load));
  report.set_mem_utilization(kv);
  report.set_rps_fractional(requests);
  report.set_eps(errors);
  // Under the names that vLLM reports them by, and our own.
  auto& named = *report.mutable_named_metrics();
  named["kv_cache_usage_perc"] = kv;
  named["num_requests_running"] = load.running;
  named["num_requests_waiting"] = load.waiting;
  named["tokens_per_second"] = load.tokens_per_second;
  return report;
}

std::string SerializeForTrailer(const OrcaLoadReport& report) {
  std::string bytes = report.SerializeAsString();
  // The field rps with its default: two bytes that change nothing.
  constexpr char kZeroRps[] = {OrcaLoadReport::kRpsFieldNumber << 3, 0};
  while (bytes.size() % 3 != 0) bytes.append(kZeroRps, sizeof kZeroRps);
  return bytes;
}

void LoadReporter::Serve(const Engine* engine) {
  MutexLock lock(&mutex_);
  engine_ = engine;
}

std::optional<LoadSnapshot> LoadReporter::Snapshot() const {
  MutexLock lock(&mutex_);
  if (engine_ == nullptr) return std::nullopt;
  return engine_->snapshot();
}

void LoadReporter::CountEnded(grpc::StatusCode code) {
  const TimePoint now = clock_.Now();
  MutexLock lock(&mutex_);
  requests_.Add(now);
  if (IsError(code)) errors_.Add(now);
}

OrcaLoadReport LoadReporter::Report() const {
  const std::optional<LoadSnapshot> load = Snapshot();
  double requests;
  double errors;
  {
    MutexLock lock(&mutex_);
    const TimePoint now = clock_.Now();
    requests = requests_.PerSecond(now);
    errors = errors_.PerSecond(now);
  }
  return MakeLoadReport(load.value_or(LoadSnapshot{}), requests, errors);
}

}  // namespace millrace
