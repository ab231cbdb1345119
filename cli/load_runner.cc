#include "cli/load_runner.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "cli/cli_util.h"
#include "millrace/v1/generation.grpc.pb.h"
#include "service/status_mapping.h"

namespace millrace::cli {
namespace {

using Clock = std::chrono::steady_clock;

// What a slow reader waits between two messages.
constexpr auto kSlowPause = std::chrono::milliseconds(200);

double SecondsBetween(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

// Whom the worker sends for: the first tenant's are kGreed for one of each other.
int TenantOf(int worker, const LoadgenOptions& options) {
  const int at = worker % (kGreed + options.tenants - 1);
  return std::max(0, at - kGreed + 1);
}

v1::GenerateRequest MakeRequest(const PlannedCall& call, std::uint32_t vocab) {
  v1::GenerateRequest request;
  auto* const ids = request.mutable_token_ids()->mutable_ids();
  ids->Add(call.prompt.begin(), call.prompt.end());
  std::mt19937_64 rng(call.seed);
  while (ids->size() < static_cast<int>(call.prompt_tokens)) {
    ids->Add(static_cast<std::uint32_t>(rng() % vocab));
  }
  request.mutable_sampling()->set_seed(call.seed);
  request.mutable_stopping()->set_max_new_tokens(call.output_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

// All workers of a run.
class Runner {
 public:
  Runner(const std::shared_ptr<grpc::Channel>& channel, const LoadgenOptions& options,
         const std::vector<PlannedCall>& calls, std::uint32_t vocab)
      : channel_(channel), options_(options), calls_(calls), vocab_(vocab) {}

  LoadResult Run() {
    result_.calls.resize(calls_.size());
    begin_ = Clock::now();
    std::vector<std::thread> workers;
    for (int i = 0; i < options_.concurrency; ++i) {
      workers.emplace_back([this, i] { Work(TenantName(TenantOf(i, options_))); });
    }
    for (std::thread& worker : workers) worker.join();
    result_.seconds = SecondsBetween(begin_, Clock::now());
    MutexLock lock(&tokens_mutex_);
    result_.tokens = std::move(tokens_);
    return std::move(result_);
  }

 private:
  void Work(const std::string& tenant) {
    const auto stub = v1::GenerationService::NewStub(channel_);
    for (std::size_t at = next_++; at < calls_.size(); at = next_++) {
      if (at + 1 == calls_.size()) contended_ = false;
      const PlannedCall& call = calls_[at];
      CallOutcome& outcome = result_.calls[at];
      outcome.tenant = call.tenant.empty() ? tenant : call.tenant;
      if (options_.open()) {
        const auto start = begin_ + call.start;
        std::this_thread::sleep_until(start);
        outcome.late = SecondsBetween(start, Clock::now());
      }
      Send(stub.get(), call, &outcome);
      MutexLock lock(&mutex_);
      bar_.Update(++done_, calls_.size());
    }
  }

  void Send(v1::GenerationService::Stub* stub, const PlannedCall& call, CallOutcome* outcome) {
    const v1::GenerateRequest request = MakeRequest(call, vocab_);
    grpc::ClientContext context;
    if (options_.deadline_seconds > 0) {
      context.set_deadline(std::chrono::system_clock::now() +
                           std::chrono::duration_cast<std::chrono::nanoseconds>(
                               std::chrono::duration<double>(options_.deadline_seconds)));
    }
    if (options_.tenants > 1 || !call.tenant.empty()) {
      context.AddMetadata("x-gateway-inference-fairness-id", outcome->tenant);
    }
    const auto begin = Clock::now();
    outcome->start = SecondsBetween(begin_, begin);
    const auto reader = stub->Generate(&context, request);
    v1::GenerateResponse message;
    double last = 0;
    for (int count = 0; reader->Read(&message); ++count) {
      const double now = SecondsBetween(begin, Clock::now());
      if (message.token_ids_size() > 0) {
        TakeTokens(message.token_ids_size(), now, last, outcome);
        last = now;
      }
      if (count == call.cancel_after) context.TryCancel();
      if (call.slow) std::this_thread::sleep_for(kSlowPause);
    }
    outcome->code = CodeName(reader->Finish().error_code());
    outcome->total = SecondsBetween(begin, Clock::now());
  }

  void TakeTokens(int tokens, double now, double last, CallOutcome* outcome) {
    if (outcome->first_token < 0) {
      outcome->first_token = now;
    } else {
      outcome->between.insert(outcome->between.end(), static_cast<std::size_t>(tokens),
                              (now - last) / tokens);
    }
    outcome->tokens += static_cast<std::uint64_t>(tokens);
    if (contended_) outcome->contended_tokens += static_cast<std::uint64_t>(tokens);
    MutexLock lock(&tokens_mutex_);
    tokens_.Add(outcome->start + now, static_cast<std::uint64_t>(tokens));
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const LoadgenOptions& options_;
  const std::vector<PlannedCall>& calls_;
  const std::uint32_t vocab_;
  Clock::time_point begin_;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> contended_{true};  // until the last call is taken
  LoadResult result_;                  // calls: each by who sends it; the rest when all have ended
  // Apart from the bar's, which a slow terminal may hold for long.
  Mutex tokens_mutex_;
  TokenTimeline tokens_ ABSL_GUARDED_BY(tokens_mutex_);
  Mutex mutex_;
  std::uint64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
  ProgressBar bar_ ABSL_GUARDED_BY(mutex_){"requests"};
};

}  // namespace

std::string TenantName(int tenant) { return absl::StrCat("tenant-", tenant); }

LoadResult RunLoad(const std::shared_ptr<grpc::Channel>& channel, const LoadgenOptions& options,
                   const std::vector<PlannedCall>& calls, std::uint32_t vocab) {
  return Runner(channel, options, calls, vocab).Run();
}

}  // namespace millrace::cli
