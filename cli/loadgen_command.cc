// `millrace loadgen`: many requests to a server, in a closed loop, at a rate or as they once came,
// and what became of them.
#include <grpcpp/grpcpp.h>
#include <CLI/CLI.hpp>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "cli/cli_util.h"
#include "cli/commands.h"
#include "cli/distribution.h"
#include "cli/load_plan.h"
#include "cli/load_report.h"
#include "cli/load_runner.h"
#include "millrace/v1/generation.grpc.pb.h"
#include "service/status_mapping.h"

namespace millrace::cli {
namespace {

constexpr char kName[] = "loadgen";

// Without --concurrency: a loop of so many, or at most so many at once when they come by the clock.
constexpr int kClosedLoop = 8;
constexpr int kOpenLoop = 512;

absl::Status Run(const LoadOptions& options) {
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
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<PlannedCall> calls,
                            PlanLoad(options, info.context_length()));
  const LoadResult result = RunLoad(channel, options, calls, info.vocab_size());
  const nlohmann::json summary = SummariseLoad(options, result);
  PrintLoad(summary);
  MILLRACE_RETURN_IF_ERROR(WriteFile("--json", options.json, summary.dump(2) + '\n'));
  return WriteFile("--html", options.html, LoadPage(summary, result));
}

}  // namespace

int RunLoadgen(int argc, char** argv) {
  CLI::App app(
      "Sends many requests with random prompts and counts what comes back: throughput, latencies "
      "and every status. Each of --concurrency workers sends its next request when the last one "
      "has ended; with --rate or --trace requests come by themselves",
      kName);
  LoadOptions options;
  app.add_option("--target", options.target, "HOST:PORT of the server")->required();
  app.add_option("--concurrency", options.concurrency,
                 absl::StrCat("Requests at once (default: ", kClosedLoop,
                              "); by --rate or --trace at most (", kOpenLoop, ")"))
      ->check(CLI::Range(1, 4096));
  app.add_option(
         "--rate", options.rate,
         "Requests a second on average, at random times (Poisson), whatever becomes of them")
      ->check(CLI::Range(0.001, 1e6));
  app.add_option(
         "--trace", options.trace,
         "Requests as they once came: a file of lines {\"at\": SECONDS, \"prompt_tokens\": N, "
         "\"output_tokens\": N, \"tenant\": NAME}, or what serve --record wrote, with its "
         "prompts")
      ->excludes("--rate");
  app.add_option("--speed", options.speed, "How many times as fast as in --trace they come")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 1000.0));
  app.add_option("--requests", options.requests, "Requests in all, but for --trace")
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
  app.add_option("--html", options.html, "Writes a page with plots to this file");
  if (const auto code = ParseFlags(&app, argc, argv)) return *code;
  if (options.concurrency == 0) options.concurrency = options.open() ? kOpenLoop : kClosedLoop;
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
