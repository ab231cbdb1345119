// `millrace loadgen`: many requests to a server, in a closed loop, at a rate or as they once came,
// and what became of them.
#include <grpcpp/grpcpp.h>
#include <CLI/CLI.hpp>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
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
// A server that takes longer to say what it serves hangs, and would do nothing with a load either.
constexpr auto kInfoTimeout = std::chrono::seconds(5);

absl::StatusOr<v1::ModelInfo> AskModel(const std::shared_ptr<grpc::Channel>& channel,
                                       const std::string& target) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kInfoTimeout);
  v1::ModelInfo info;
  const grpc::Status status = v1::GenerationService::NewStub(channel)->GetModelInfo(
      &context, v1::GetModelInfoRequest(), &info);
  if (!status.ok()) {
    return absl::UnavailableError(absl::StrCat("--target ", target, ": ",
                                               std::string(CodeName(status.error_code())), ": ",
                                               status.error_message()));
  }
  if (info.vocab_size() == 0 || info.context_length() < 2) {
    return absl::UnavailableError(absl::StrCat(
        "--target ", target, ": its model has ", info.vocab_size(), " tokens and a context of ",
        info.context_length(), "; a load needs at least 1 and 2"));
  }
  return info;
}

absl::Status Run(const LoadgenOptions& options) {
  MILLRACE_RETURN_IF_ERROR(CheckWritable("--json", options.json));
  MILLRACE_RETURN_IF_ERROR(CheckWritable("--html", options.html));
  const auto channel = grpc::CreateChannel(options.target, grpc::InsecureChannelCredentials());
  MILLRACE_ASSIGN_OR_RETURN(const v1::ModelInfo info, AskModel(channel, options.target));
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<PlannedCall> calls,
                            PlanLoad(options, info.context_length()));
  const LoadResult result = RunLoad(channel, options, calls, info.vocab_size());
  const nlohmann::json summary = SummariseLoad(options, result);
  PrintLoad(summary);
  // A file's name need not be UTF-8.
  const std::string text = summary.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
  MILLRACE_RETURN_IF_ERROR(WriteFile("--json", options.json, text + '\n'));
  return WriteFile("--html", options.html, LoadPage(summary, result));
}

}  // namespace

int RunLoadgen(int argc, char** argv) {
  CLI::App app(
      "Sends many requests with random prompts and counts what comes back: throughput, latencies "
      "and every status. Each of --concurrency workers sends its next request when the last one "
      "has ended; with --rate or --trace requests come by themselves",
      kName);
  LoadgenOptions options;
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
      ->check(CLI::Range(0.0, 1e6));
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
  for (const auto& [flag, text] : {std::pair("--prompt-tokens", options.prompt_tokens),
                                   std::pair("--output-tokens", options.output_tokens)}) {
    const absl::Status status = Distribution::Parse(text).status();
    if (!status.ok()) {
      return Fail(kName, absl::StrCat(flag, " ", std::string(status.message())), 2);
    }
  }
  const absl::Status status = Run(options);
  return status.ok() ? 0 : Fail(kName, status);
}

}  // namespace millrace::cli
