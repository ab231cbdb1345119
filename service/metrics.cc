#include "service/metrics.h"

#include <prometheus/text_serializer.h>

#include <utility>
#include <vector>

namespace millrace {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;
using prometheus::Registry;
using Buckets = Histogram::BucketBoundaries;

// From a 1 ms step of a GPU to a long answer of a CPU.
const Buckets& Seconds() {
  static const Buckets buckets = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                  0.5,    1,     2.5,    5,     10,   30,    60,   120, 600};
  return buckets;
}

// Powers of two up to the longest contexts.
const Buckets& Tokens() {
  static const Buckets buckets = {1,   2,    4,    8,    16,   32,    64,    128,   256,
                                  512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072};
  return buckets;
}

const Buckets& Small() {
  static const Buckets buckets = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
  return buckets;
}

Family<Counter>& Counters(Registry* registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*registry);
}
Counter& OneCounter(Registry* registry, const char* name, const char* help,
                    const prometheus::Labels& labels = {}) {
  return Counters(registry, name, help).Add(labels);
}
Histogram& OneHistogram(Registry* registry, const char* name, const char* help,
                        const Buckets& buckets, const prometheus::Labels& labels = {}) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry).Add(labels,
                                                                                    buckets);
}

constexpr char kForward[] = "millrace_forward_tokens_total";
constexpr char kForwardHelp[] = "Tokens computed, by the path through the feed-forward layers";
constexpr char kStep[] = "millrace_step_seconds";
constexpr char kStepHelp[] = "Time of a step, by phase";

// Every cause there is. Each is shown from the start at 0: Prometheus sees no increase in a series
// that begins at 1.
constexpr const char* kShedCauses[] = {"queue_full", "deadline", "displaced", "draining"};
constexpr const char* kWasteCauses[] = {"preemption",  "ended",    "cancel", "deadline",
                                        "slow_reader", "shutdown", "failure"};

}  // namespace

Metrics::Metrics(const std::string& version)
    : load_(version),
      prompt_tokens_(OneCounter(&registry_, "millrace_prompt_tokens_total",
                                "Tokens of the prompts of accepted requests")),
      generated_tokens_(
          OneCounter(&registry_, "millrace_generated_tokens_total", "Tokens sampled")),
      preemptions_(OneCounter(&registry_, "millrace_preemptions_total",
                              "Sequences that gave their blocks back and were computed again")),
      prefix_queries_(OneCounter(&registry_, "millrace_prefix_cache_queries_tokens_total",
                                 "Tokens of sequences that looked for their prefix")),
      prefix_hits_(OneCounter(&registry_, "millrace_prefix_cache_hits_tokens_total",
                              "Tokens found in the prefix cache and not computed")),
      prefix_evictions_(OneCounter(&registry_, "millrace_prefix_cache_evicted_blocks_total",
                                   "Blocks kept in the prefix cache that made room for others")),
      forward_dense_(OneCounter(&registry_, kForward, kForwardHelp, {{"path", "dense"}})),
      forward_moe_(OneCounter(&registry_, kForward, kForwardHelp, {{"path", "moe"}})),
      sheds_(Counters(&registry_, "millrace_sheds_total", "Requests refused for load, by cause")),
      wasted_(Counters(&registry_, "millrace_wasted_tokens_total",
                       "Tokens computed again or generated for nobody, by cause")),
      time_to_first_token_(OneHistogram(&registry_, "millrace_time_to_first_token_seconds",
                                        "Arrival to the first token", Seconds())),
      inter_token_(OneHistogram(&registry_, "millrace_inter_token_latency_seconds",
                                "Between two tokens of a stream", Seconds())),
      queue_(OneHistogram(&registry_, "millrace_request_queue_seconds", "Arrival to the first step",
                          Seconds())),
      prefill_(OneHistogram(&registry_, "millrace_request_prefill_seconds",
                            "First step to the first token", Seconds())),
      decode_(OneHistogram(&registry_, "millrace_request_decode_seconds", "First token to the last",
                           Seconds())),
      end_to_end_(OneHistogram(&registry_, "millrace_request_e2e_seconds", "Arrival to the end",
                               Seconds())),
      prompt_sizes_(OneHistogram(&registry_, "millrace_request_prompt_tokens", "Tokens of a prompt",
                                 Tokens())),
      generated_sizes_(OneHistogram(&registry_, "millrace_request_generated_tokens",
                                    "Tokens generated for a request", Tokens())),
      step_forward_(OneHistogram(&registry_, kStep, kStepHelp, Seconds(), {{"phase", "forward"}})),
      step_schedule_(
          OneHistogram(&registry_, kStep, kStepHelp, Seconds(), {{"phase", "schedule"}})),
      step_sequences_(OneHistogram(&registry_, "millrace_step_batch_sequences",
                                   "Sequences in a step", Small())),
      step_tokens_(
          OneHistogram(&registry_, "millrace_step_batch_tokens", "Tokens in a step", Tokens())),
      active_experts_(OneHistogram(&registry_, "millrace_moe_active_experts",
                                   "Experts with rows, by layer and step", Small())),
      rows_per_expert_(OneHistogram(&registry_, "millrace_moe_rows_per_expert",
                                    "Rows of an expert with rows, by layer and step", Small())) {
  for (const char* cause : kShedCauses) sheds_.Add({{"cause", cause}});
  for (const char* cause : kWasteCauses) wasted_.Add({{"cause", cause}});
}

void Metrics::SetModel(const v1::ModelInfo& model, const Engine* engine, std::int32_t block_size) {
  load_.SetModel(model, engine, block_size);
}

void Metrics::CountAccepted(std::uint64_t prompt_tokens) {
  prompt_tokens_.Increment(static_cast<double>(prompt_tokens));
}

void Metrics::CountShed(const std::string& cause) { sheds_.Add({{"cause", cause}}).Increment(); }

void Metrics::CountStep(const StepStats& step) {
  const std::int32_t tokens = step.prefill_tokens + step.decode_tokens;
  (step.moe ? forward_moe_ : forward_dense_).Increment(tokens);
  preemptions_.Increment(step.preemptions);
  prefix_queries_.Increment(static_cast<double>(step.prefix_cache.queried_tokens));
  prefix_hits_.Increment(static_cast<double>(step.prefix_cache.hit_tokens));
  prefix_evictions_.Increment(static_cast<double>(step.prefix_cache.evicted_blocks));
  if (step.recomputed_tokens > 0) {
    CountWasted("preemption", static_cast<std::uint64_t>(step.recomputed_tokens));
  }
  if (step.unwanted_tokens > 0) {
    CountWasted("ended", static_cast<std::uint64_t>(step.unwanted_tokens));
  }
  step_forward_.Observe(ToSeconds(step.duration));
  step_schedule_.Observe(ToSeconds(step.schedule_duration));
  step_sequences_.Observe(step.sequences);
  step_tokens_.Observe(tokens);
  for (const std::int32_t experts : step.experts.active_experts) active_experts_.Observe(experts);
  // Most experts have few rows: counted by value first, so that one step is few observations.
  std::vector<double> increments(Small().size() + 1, 0.0);
  double sum = 0;
  for (const std::int32_t rows : step.experts.rows_per_expert) {
    std::size_t bucket = 0;
    while (bucket < Small().size() && rows > Small()[bucket]) ++bucket;
    increments[bucket] += 1;
    sum += rows;
  }
  if (sum > 0) rows_per_expert_.ObserveMultiple(increments, sum);
}

void Metrics::CountGenerated(std::uint64_t tokens) {
  generated_tokens_.Increment(static_cast<double>(tokens));
}

void Metrics::ObserveFirstToken(Duration since_arrival) {
  time_to_first_token_.Observe(ToSeconds(since_arrival));
}

void Metrics::ObserveBetweenTokens(Duration each, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) inter_token_.Observe(ToSeconds(each));
}

void Metrics::ObserveFinished(const RequestUsage& usage, Duration since_arrival) {
  queue_.Observe(ToSeconds(usage.queue));
  prefill_.Observe(ToSeconds(usage.prefill));
  decode_.Observe(ToSeconds(usage.decode));
  end_to_end_.Observe(ToSeconds(since_arrival));
  prompt_sizes_.Observe(usage.prompt_tokens);
  generated_sizes_.Observe(usage.completion_tokens);
}

void Metrics::CountWasted(const std::string& cause, std::uint64_t tokens) {
  wasted_.Add({{"cause", cause}}).Increment(static_cast<double>(tokens));
}

std::string Metrics::Scrape() const {
  std::vector<prometheus::MetricFamily> families = registry_.Collect();
  const prometheus::Collectable* const others[] = {&ledger_, &load_};
  for (const prometheus::Collectable* other : others) {
    for (prometheus::MetricFamily& family : other->Collect()) {
      families.push_back(std::move(family));
    }
  }
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace millrace
