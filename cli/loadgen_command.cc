// `millrace loadgen`: many requests to a server, in a closed loop or at a rate, and what became of
// them.
#include <grpcpp/grpcpp.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "cli/cli_util.h"
#include "cli/commands.h"
#include "cli/distribution.h"
#include "millrace/v1/generation.grpc.pb.h"
#include "service/status_mapping.h"

namespace millrace::cli {
namespace {

constexpr char kName[] = "loadgen";

// How many workers the first tenant has for each one of another: an attacker beside victims.
constexpr int kGreed = 10;

// Without --concurrency: a loop of so many, or at most so many at once when they come by --rate.
constexpr int kClosedLoop = 8;
constexpr int kOpenLoop = 512;

// What a slow reader waits between two messages.
constexpr auto kSlowPause = std::chrono::milliseconds(200);

struct Options {
  std::string target;
  int concurrency = 0;  // 0: of the loop's kind
  double rate = 0;      // requests a second; 0: a closed loop
  int requests = 100;
  std::string prompt_tokens = "uniform:16:256";
  std::string output_tokens = "uniform:16:128";
  double deadline_seconds = 0;
  double cancel_fraction = 0;
  double slow_fraction = 0;
  int tenants = 1;
  std::uint64_t seed = 1;
  std::string json;
};

// One request, drawn before it is sent so that runs with one seed ask for the same.
struct Plan {
  Duration start{};  // since the beginning, with --rate
  std::uint32_t prompt_tokens = 0;
  std::uint32_t output_tokens = 0;
  std::uint64_t seed = 0;
  int cancel_after = -1;  // messages; -1: never
  bool slow = false;
};

struct Outcome {
  std::string code;
  double late = 0;  // seconds after its time, with --rate: nobody was free to send it
  std::uint64_t tokens = 0;
  double first_token = -1;  // seconds since the start; -1: none came
  double total = 0;
  std::vector<double> between;  // seconds between two messages with tokens, by token
  int tenant = 0;
  std::uint64_t contended_tokens = 0;  // that came while every tenant had more to send
};

// Whom the worker sends for: the first tenant's are kGreed for one of each other.
int TenantOf(int worker, const Options& options) {
  const int at = worker % (kGreed + options.tenants - 1);
  return std::max(0, at - kGreed + 1);
}

std::string TenantName(int tenant) { return absl::StrCat("tenant-", tenant); }

absl::StatusOr<std::vector<Plan>> MakePlans(const Options& options, std::uint32_t context) {
  MILLRACE_ASSIGN_OR_RETURN(const auto prompt, Distribution::Parse(options.prompt_tokens));
  MILLRACE_ASSIGN_OR_RETURN(const auto output, Distribution::Parse(options.output_tokens));
  std::mt19937_64 rng(options.seed);
  std::uniform_real_distribution<double> share(0, 1);
  std::exponential_distribution<double> gap(options.rate > 0 ? options.rate : 1);
  double at = 0;
  std::vector<Plan> plans(static_cast<std::size_t>(options.requests));
  for (Plan& plan : plans) {
    // Poisson arrivals.
    if (options.rate > 0) at += gap(rng);
    plan.start = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(at));
    plan.prompt_tokens = std::min(prompt.Draw(&rng), context - 1);
    plan.output_tokens = std::min(output.Draw(&rng), context - plan.prompt_tokens);
    plan.seed = rng();
    if (share(rng) < options.cancel_fraction) {
      plan.cancel_after = static_cast<int>(rng() % plan.output_tokens);
    }
    plan.slow = share(rng) < options.slow_fraction;
  }
  return plans;
}

v1::GenerateRequest MakeRequest(const Plan& plan, std::uint32_t vocab) {
  v1::GenerateRequest request;
  std::mt19937_64 rng(plan.seed);
  for (std::uint32_t i = 0; i < plan.prompt_tokens; ++i) {
    request.mutable_token_ids()->add_ids(static_cast<std::uint32_t>(rng() % vocab));
  }
  request.mutable_sampling()->set_seed(plan.seed);
  request.mutable_stopping()->set_max_new_tokens(plan.output_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

// `contended` says whether all tenants have more to send.
Outcome RunOne(v1::GenerationService::Stub* stub, const Options& options, const Plan& plan,
               std::uint32_t vocab, int tenant, const std::atomic<bool>& contended) {
  const v1::GenerateRequest request = MakeRequest(plan, vocab);
  grpc::ClientContext context;
  if (options.deadline_seconds > 0) {
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::duration_cast<std::chrono::nanoseconds>(
                             std::chrono::duration<double>(options.deadline_seconds)));
  }
  if (options.tenants > 1) {
    context.AddMetadata("x-gateway-inference-fairness-id", TenantName(tenant));
  }
  const SteadyClock clock;
  const TimePoint begin = clock.Now();
  Outcome outcome;
  outcome.tenant = tenant;
  const auto reader = stub->Generate(&context, request);
  v1::GenerateResponse message;
  double last = 0;
  for (int count = 0; reader->Read(&message); ++count) {
    const double now = ToSeconds(clock.Now() - begin);
    const int tokens = message.token_ids_size();
    if (tokens > 0 && outcome.first_token < 0) {
      outcome.first_token = now;
    } else if (tokens > 0) {
      outcome.between.insert(outcome.between.end(), static_cast<std::size_t>(tokens),
                             (now - last) / tokens);
    }
    if (tokens > 0) last = now;
    outcome.tokens += static_cast<std::uint64_t>(tokens);
    if (contended) outcome.contended_tokens += static_cast<std::uint64_t>(tokens);
    if (count == plan.cancel_after) context.TryCancel();
    if (plan.slow) std::this_thread::sleep_for(kSlowPause);
  }
  outcome.code = CodeName(reader->Finish().error_code());
  outcome.total = ToSeconds(clock.Now() - begin);
  return outcome;
}

// Every worker sends the next request when its last one has ended and, with --rate, its time has
// come.
std::vector<Outcome> RunAll(const std::shared_ptr<grpc::Channel>& channel, const Options& options,
                            const std::vector<Plan>& plans, std::uint32_t vocab) {
  std::vector<Outcome> outcomes(plans.size());
  std::atomic<std::size_t> next{0};
  std::atomic<bool> contended{true};  // until the last request is taken
  Mutex mutex;
  std::uint64_t done = 0;  // guarded by mutex, as the bar is
  ProgressBar bar("requests");
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> workers;
  for (int i = 0; i < options.concurrency; ++i) {
    workers.emplace_back([&, tenant = TenantOf(i, options)] {
      const auto stub = v1::GenerationService::NewStub(channel);
      for (std::size_t at = next++; at < plans.size(); at = next++) {
        if (at + 1 == plans.size()) contended = false;
        const auto start = begin + plans[at].start;
        std::this_thread::sleep_until(start);
        const Duration late = std::chrono::steady_clock::now() - start;
        outcomes[at] = RunOne(stub.get(), options, plans[at], vocab, tenant, contended);
        if (options.rate > 0) outcomes[at].late = ToSeconds(late);
        MutexLock lock(&mutex);
        bar.Update(++done, plans.size());
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  return outcomes;
}

nlohmann::json Quantiles(std::vector<double> values) {
  if (values.empty()) return nullptr;
  std::sort(values.begin(), values.end());
  // The nearest rank.
  const auto at = [&values](double q) {
    const auto rank = static_cast<std::size_t>(q * static_cast<double>(values.size()));
    return values[std::min(rank, values.size() - 1)];
  };
  double sum = 0;
  for (const double value : values) sum += value;
  return {{"mean", sum / static_cast<double>(values.size())},
          {"p50", at(0.5)},
          {"p90", at(0.9)},
          {"p99", at(0.99)},
          {"max", values.back()}};
}

// Of each tenant the tokens it got, and when its first ones came.
nlohmann::json SummariseTenants(const Options& options, const std::vector<Outcome>& outcomes) {
  nlohmann::json tenants;
  for (int tenant = 0; tenant < options.tenants; ++tenant) {
    std::uint64_t tokens = 0;
    std::uint64_t contended = 0;
    std::uint64_t requests = 0;
    std::vector<double> first;
    for (const Outcome& outcome : outcomes) {
      if (outcome.tenant != tenant) continue;
      ++requests;
      tokens += outcome.tokens;
      contended += outcome.contended_tokens;
      if (outcome.first_token >= 0) first.push_back(outcome.first_token);
    }
    tenants[TenantName(tenant)] = {{"requests", requests},
                                   {"generated_tokens", tokens},
                                   {"contended_tokens", contended},
                                   {"ttft_seconds", Quantiles(std::move(first))}};
  }
  return tenants;
}

nlohmann::json Summarise(const Options& options, const std::vector<Outcome>& outcomes,
                         double seconds) {
  std::map<std::string, int> statuses;
  std::vector<double> first, between, total, refused, late;
  std::uint64_t tokens = 0;
  std::uint64_t good_tokens = 0;
  for (const Outcome& outcome : outcomes) {
    ++statuses[outcome.code];
    tokens += outcome.tokens;
    if (outcome.first_token >= 0) first.push_back(outcome.first_token);
    if (options.rate > 0) late.push_back(outcome.late);
    if (outcome.code == "RESOURCE_EXHAUSTED") refused.push_back(outcome.total);
    between.insert(between.end(), outcome.between.begin(), outcome.between.end());
    if (outcome.code != "OK") continue;
    good_tokens += outcome.tokens;
    total.push_back(outcome.total);
  }
  return {{"target", options.target},
          {"concurrency", options.concurrency},
          {"rate", options.rate},
          {"requests", outcomes.size()},
          {"seed", options.seed},
          {"prompt_tokens", options.prompt_tokens},
          {"output_tokens", options.output_tokens},
          {"seconds", seconds},
          {"statuses", statuses},
          {"generated_tokens", tokens},
          {"tokens_per_second", static_cast<double>(tokens) / seconds},
          {"goodput_tokens_per_second", static_cast<double>(good_tokens) / seconds},
          {"requests_per_second", static_cast<double>(total.size()) / seconds},
          {"tenants", SummariseTenants(options, outcomes)},
          {"ttft_seconds", Quantiles(std::move(first))},
          {"itl_seconds", Quantiles(std::move(between))},
          {"e2e_seconds", Quantiles(std::move(total))},
          {"refusal_seconds", Quantiles(std::move(refused))},
          {"late_seconds", Quantiles(std::move(late))}};
}

void Print(const nlohmann::json& summary) {
  std::printf("%.1f tok/s, %.2f requests/s, %.1f s\n", summary["tokens_per_second"].get<double>(),
              summary["requests_per_second"].get<double>(), summary["seconds"].get<double>());
  for (const char* name :
       {"ttft_seconds", "itl_seconds", "e2e_seconds", "refusal_seconds", "late_seconds"}) {
    const nlohmann::json& q = summary[name];
    if (q.is_null()) continue;
    std::printf("  %-28s p50 %.4f  p90 %.4f  p99 %.4f  max %.4f\n", name, q["p50"].get<double>(),
                q["p90"].get<double>(), q["p99"].get<double>(), q["max"].get<double>());
  }
  for (const auto& [name, tenant] : summary["tenants"].items()) {
    if (summary["tenants"].size() == 1) break;
    const nlohmann::json& first = tenant["ttft_seconds"];
    std::printf(
        "  %-28s %d requests, %d tokens, %d of them while all had more to send, ttft p50 %.4f\n",
        name.c_str(), tenant["requests"].get<int>(), tenant["generated_tokens"].get<int>(),
        tenant["contended_tokens"].get<int>(), first.is_null() ? 0.0 : first["p50"].get<double>());
  }
  for (const auto& [code, count] : summary["statuses"].items()) {
    std::printf("  %-28s %d\n", code.c_str(), count.get<int>());
  }
}

absl::Status Run(const Options& options) {
  grpc::ChannelArguments arguments;
  const auto channel =
      grpc::CreateCustomChannel(options.target, grpc::InsecureChannelCredentials(), arguments);
  const auto stub = v1::GenerationService::NewStub(channel);
  v1::ModelInfo info;
  grpc::ClientContext context;
  const grpc::Status status = stub->GetModelInfo(&context, v1::GetModelInfoRequest(), &info);
  if (!status.ok()) {
    return absl::UnavailableError(absl::StrCat("--target ", options.target, ": ",
                                               std::string(CodeName(status.error_code())), ": ",
                                               status.error_message()));
  }
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<Plan> plans,
                            MakePlans(options, info.context_length()));
  const SteadyClock clock;
  const TimePoint begin = clock.Now();
  const std::vector<Outcome> outcomes = RunAll(channel, options, plans, info.vocab_size());
  const nlohmann::json summary = Summarise(options, outcomes, ToSeconds(clock.Now() - begin));
  Print(summary);
  if (options.json.empty()) return absl::OkStatus();
  std::ofstream file(options.json);
  file << summary.dump(2) << '\n';
  file.close();
  if (!file) return absl::InternalError("--json " + options.json + ": cannot be written");
  return absl::OkStatus();
}

}  // namespace

int RunLoadgen(int argc, char** argv) {
  CLI::App app(
      "Sends many requests with random prompts and counts what comes back: throughput, latencies "
      "and every status. Each of --concurrency workers sends its next request when the last one "
      "has ended; with --rate requests come by themselves",
      kName);
  Options options;
  app.add_option("--target", options.target, "HOST:PORT of the server")->required();
  app.add_option("--concurrency", options.concurrency,
                 absl::StrCat("Requests at once (default: ", kClosedLoop,
                              "); with --rate at most (", kOpenLoop, ")"))
      ->check(CLI::Range(1, 4096));
  app.add_option(
         "--rate", options.rate,
         "Requests a second on average, at random times (Poisson), whatever becomes of them")
      ->check(CLI::Range(0.001, 1e6));
  app.add_option("--requests", options.requests, "Requests in all")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000000));
  app.add_option("--prompt-tokens", options.prompt_tokens,
                 "N, uniform:A:B or lognormal:MEDIAN:SIGMA")
      ->capture_default_str();
  app.add_option("--output-tokens", options.output_tokens,
                 "N, uniform:A:B or lognormal:MEDIAN:SIGMA")
      ->capture_default_str();
  app.add_option("--deadline", options.deadline_seconds, "Seconds for a request; 0: none")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--cancel-fraction", options.cancel_fraction,
                 "Share of requests cancelled on their way")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--slow-fraction", options.slow_fraction, "Share of requests read slowly")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--tenants", options.tenants,
                 "Requests come from so many tenants (x-gateway-inference-fairness-id; the server "
                 "must trust this machine: serve --gateway 127.0.0.0/8). The first sends ten times "
                 "as much as each of the others")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--seed", options.seed, "Draws the same requests again")->capture_default_str();
  app.add_option("--json", options.json, "Writes the figures to this file too");
  if (const auto code = ParseFlags(&app, argc, argv)) return *code;
  if (options.concurrency == 0) options.concurrency = options.rate > 0 ? kOpenLoop : kClosedLoop;
  if (options.tenants > 1 && options.concurrency < kGreed + options.tenants - 1) {
    return Fail(kName,
                absl::StrCat("--tenants ", options.tenants, ": want --concurrency of at least ",
                             kGreed + options.tenants - 1, "; it is ", options.concurrency,
                             "; see 'millrace loadgen --help'"),
                2);
  }
  for (const std::string& text : {options.prompt_tokens, options.output_tokens}) {
    const auto parsed = Distribution::Parse(text);
    if (!parsed.ok()) return Fail(kName, std::string(parsed.status().message()), 2);
  }
  const absl::Status status = Run(options);
  return status.ok() ? 0 : Fail(kName, status);
}

}  // namespace millrace::cli
