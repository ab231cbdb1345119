#include "service/load_collector.h"

#include <chrono>
#include <utility>

#include "base/clock.h"
#include "service/metric_families.h"

namespace millrace {
namespace {

using prometheus::MetricFamily;

MetricFamily Gauge(const std::string& name, const std::string& help, double value,
                   const MetricLabels& labels = {}) {
  MetricFamily family = GaugeFamily(name, help);
  AddGauge(&family, labels, value);
  return family;
}

MetricFamily Blocks(const LoadSnapshot& load) {
  MetricFamily family = GaugeFamily("millrace_kv_blocks", "Blocks of the KV cache by state");
  const std::int64_t free = load.kv_blocks_total - load.kv_blocks_used - load.kv_blocks_cached;
  AddGauge(&family, {{"state", "free"}}, static_cast<double>(free));
  AddGauge(&family, {{"state", "used"}}, static_cast<double>(load.kv_blocks_used));
  AddGauge(&family, {{"state", "cached"}}, static_cast<double>(load.kv_blocks_cached));
  return family;
}

double Usage(const LoadSnapshot& load) {
  if (load.kv_blocks_total == 0) return 0;
  return static_cast<double>(load.kv_blocks_used) / static_cast<double>(load.kv_blocks_total);
}

double UnixNow() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

// Steps are timed by the monotonic clock; a timestamp is of the wall clock.
double UnixSeconds(TimePoint at) {
  if (at == TimePoint{}) return 0;
  return UnixNow() - ToSeconds(SteadyClock().Now() - at);
}

}  // namespace

LoadCollector::LoadCollector(std::string version)
    : version_(std::move(version)), started_(UnixNow()) {}

void LoadCollector::SetModel(const v1::ModelInfo& model, const Engine* engine,
                             std::int32_t block_size) {
  MutexLock lock(&mutex_);
  model_ = model;
  model_.clear_chat_template();
  engine_ = engine;
  block_size_ = block_size;
}

std::vector<MetricFamily> LoadCollector::Collect() const {
  std::vector<MetricFamily> out;
  out.push_back(Gauge("millrace_build_info", "What is running", 1, {{"version", version_}}));
  // Under the name that every Prometheus client library gives it.
  out.push_back(Gauge("process_start_time_seconds", "When the process started", started_));
  MutexLock lock(&mutex_);
  if (engine_ == nullptr) return out;
  const LoadSnapshot load = engine_->snapshot();
  const MetricLabels name = {{"model_name", model_.name()}};
  out.push_back(Gauge("millrace_model_info", "What is served", 1,
                      {{"name", model_.name()},
                       {"architecture", model_.architecture()},
                       {"quantisation", model_.quantisation()},
                       {"device", model_.device()}}));
  out.push_back(Gauge("millrace_requests_running", "Requests that hold a place", load.running));
  out.push_back(Gauge("millrace_requests_waiting", "Requests in the queue", load.waiting));
  out.push_back(Blocks(load));
  out.push_back(Gauge("millrace_tokens_per_second", "Generated, over the last seconds",
                      load.tokens_per_second));
  out.push_back(Gauge("millrace_oldest_wait_seconds", "Of the requests in the queue",
                      ToSeconds(load.oldest_wait)));
  out.push_back(Gauge("millrace_last_step_timestamp_seconds", "End of the newest step; 0: none yet",
                      UnixSeconds(load.last_step)));
  // Under the names that routers look for.
  out.push_back(Gauge("vllm:num_requests_waiting", "Requests in the queue", load.waiting, name));
  out.push_back(
      Gauge("vllm:num_requests_running", "Requests that hold a place", load.running, name));
  out.push_back(Gauge("vllm:kv_cache_usage_perc", "Used blocks, 0 to 1", Usage(load), name));
  out.push_back(Gauge("vllm:cache_config_info", "Shape of the KV cache", 1,
                      {{"block_size", std::to_string(block_size_)},
                       {"num_gpu_blocks", std::to_string(load.kv_blocks_total)}}));
  return out;
}

}  // namespace millrace
