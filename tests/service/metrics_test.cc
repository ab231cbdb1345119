// The sums that must hold at every scrape do, and the names are the documented ones.
#include "service/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace millrace {
namespace {

using ::testing::HasSubstr;

double Sum(const std::vector<prometheus::MetricFamily>& families, const std::string& name) {
  double sum = 0;
  for (const prometheus::MetricFamily& family : families) {
    if (family.name != name) continue;
    for (const prometheus::ClientMetric& metric : family.metric) {
      sum += metric.counter.value + metric.gauge.value;
    }
  }
  return sum;
}

TEST(RequestLedger, CountsEveryCallOnceAtEveryScrape) {
  RequestLedger ledger;
  std::atomic<bool> done{false};
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([&ledger, i] {
      for (int n = 0; n < 2000; ++n) {
        ledger.Received(Method::kGenerate);
        ledger.Answered(Method::kGenerate, static_cast<grpc::StatusCode>((n + i) % 17));
      }
    });
  }
  std::thread scraper([&] {
    while (!done) {
      const auto families = ledger.Collect();
      ASSERT_EQ(
          Sum(families, "millrace_requests_received_total"),
          Sum(families, "millrace_requests_total") + Sum(families, "millrace_requests_in_flight"));
    }
  });
  for (std::thread& caller : callers) caller.join();
  done = true;
  scraper.join();
  const auto families = ledger.Collect();
  EXPECT_EQ(Sum(families, "millrace_requests_total"), 6000);
  EXPECT_EQ(Sum(families, "millrace_requests_in_flight"), 0);
}

// An engine that only has a state.
class StillEngine final : public Engine {
 public:
  void Start() override {}
  absl::Status Submit(Request) override { return absl::UnavailableError("still"); }
  void Cancel(RequestId) override {}
  void Credit(RequestId, std::uint64_t) override {}
  void FlushPrefixCache() override {}
  LoadSnapshot snapshot() const override { return load; }
  void BeginDrain(TimePoint) override {}
  void Join() override {}
  LoadSnapshot load;
};

TEST(Metrics, ShowsTheStateOfTheEngineUnderBothNames) {
  Metrics metrics("1.2.3");
  EXPECT_THAT(metrics.Scrape(), HasSubstr("millrace_build_info{version=\"1.2.3\"} 1"));
  StillEngine engine;
  engine.load.running = 3;
  engine.load.waiting = 2;
  engine.load.kv_blocks_total = 100;
  engine.load.kv_blocks_used = 25;
  engine.load.kv_blocks_cached = 5;
  v1::ModelInfo info;
  info.set_name("tiny");
  metrics.SetModel(info, &engine, 32);
  const std::string scrape = metrics.Scrape();
  for (const char* line :
       {"millrace_requests_running 3", "millrace_requests_waiting 2",
        "millrace_kv_blocks{state=\"free\"} 70", "millrace_kv_blocks{state=\"used\"} 25",
        "millrace_kv_blocks{state=\"cached\"} 5",
        "vllm:num_requests_waiting{model_name=\"tiny\"} 2",
        "vllm:num_requests_running{model_name=\"tiny\"} 3",
        "vllm:kv_cache_usage_perc{model_name=\"tiny\"} 0.25",
        "vllm:cache_config_info{block_size=\"32\",num_gpu_blocks=\"100\"} 1"}) {
    EXPECT_THAT(scrape, HasSubstr(line));
  }
}

TEST(Metrics, CountsAStepOnThePathItTook) {
  Metrics metrics("x");
  StepStats step;
  step.moe = true;
  step.prefill_tokens = 5;
  step.decode_tokens = 2;
  step.sequences = 3;
  step.preemptions = 1;
  step.recomputed_tokens = 4;
  step.unwanted_tokens = 6;
  step.experts.active_experts = {2, 3};
  step.experts.rows_per_expert = {1, 6, 1, 1, 5};
  metrics.CountStep(step);
  const std::string scrape = metrics.Scrape();
  for (const char* line :
       {"millrace_forward_tokens_total{path=\"moe\"} 7",
        "millrace_forward_tokens_total{path=\"dense\"} 0", "millrace_preemptions_total 1",
        "millrace_wasted_tokens_total{cause=\"preemption\"} 4",
        "millrace_wasted_tokens_total{cause=\"ended\"} 6", "millrace_step_batch_sequences_sum 3",
        "millrace_step_batch_tokens_sum 7", "millrace_moe_active_experts_count 2",
        "millrace_moe_rows_per_expert_count 5", "millrace_moe_rows_per_expert_sum 14",
        "millrace_moe_rows_per_expert_bucket{le=\"1\"} 3",
        "millrace_moe_rows_per_expert_bucket{le=\"8\"} 5"}) {
    EXPECT_THAT(scrape, HasSubstr(line));
  }
}

}  // namespace
}  // namespace millrace
