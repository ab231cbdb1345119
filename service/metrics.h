// Everything Prometheus sees. The names are fixed by the interface (docs/operations.md lists them).
// What must agree with each other at every scrape is kept and collected under one lock; the state
// of the engine is read from its snapshot at the scrape. Thread-safe.
#ifndef MILLRACE_SERVICE_METRICS_H_
#define MILLRACE_SERVICE_METRICS_H_

#include <grpcpp/support/status.h>
#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <cstdint>
#include <memory>
#include <string>

#include "millrace/v1/generation.pb.h"
#include "scheduler/engine.h"
#include "scheduler/token_event.h"
#include "service/load_collector.h"
#include "service/request_ledger.h"

namespace millrace {

class Metrics {
 public:
  explicit Metrics(const std::string& version);

  RequestLedger& ledger() { return ledger_; }

  // What is served; once, before the first request. `engine` outlives the scrapes.
  void SetModel(const v1::ModelInfo& model, const Engine* engine, std::int32_t block_size);

  // A request that the engine took.
  void CountAccepted(std::uint64_t prompt_tokens);
  void CountShed(const std::string& cause);
  // The figures of a step, and what became of requests.
  void CountStep(const StepStats& step);
  void CountGenerated(std::uint64_t tokens);
  void ObserveFirstToken(Duration since_arrival);
  void ObserveBetweenTokens(Duration each, std::uint64_t count);
  void ObserveFinished(const RequestUsage& usage, Duration since_arrival);
  // Tokens generated for a request that did not end well.
  void CountWasted(const std::string& cause, std::uint64_t tokens);

  // The text exposition format, version 0.0.4.
  std::string Scrape() const;

 private:
  prometheus::Registry registry_;
  RequestLedger ledger_;
  LoadCollector load_;

  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& generated_tokens_;
  prometheus::Counter& preemptions_;
  prometheus::Counter& prefix_queries_;
  prometheus::Counter& prefix_hits_;
  prometheus::Counter& prefix_evictions_;
  prometheus::Counter& forward_dense_;
  prometheus::Counter& forward_moe_;
  prometheus::Family<prometheus::Counter>& sheds_;
  prometheus::Family<prometheus::Counter>& wasted_;
  prometheus::Histogram& time_to_first_token_;
  prometheus::Histogram& inter_token_;
  prometheus::Histogram& queue_;
  prometheus::Histogram& prefill_;
  prometheus::Histogram& decode_;
  prometheus::Histogram& end_to_end_;
  prometheus::Histogram& prompt_sizes_;
  prometheus::Histogram& generated_sizes_;
  prometheus::Histogram& step_forward_;
  prometheus::Histogram& step_schedule_;
  prometheus::Histogram& step_sequences_;
  prometheus::Histogram& step_tokens_;
  prometheus::Histogram& active_experts_;
  prometheus::Histogram& rows_per_expert_;
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_METRICS_H_
