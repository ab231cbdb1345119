// `millrace capacity`: what this machine holds and does for a model, and what follows from it for
// the flags of serve and the targets of the autoscaler.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status.h"
#include "cli/bench_probe.h"
#include "cli/capacity_measure.h"
#include "cli/capacity_plan.h"
#include "cli/capacity_report.h"
#include "cli/cli_util.h"
#include "cli/commands.h"
#include "runtime/runner/model_loader.h"

namespace millrace::cli {
namespace {

constexpr char kName[] = "capacity";
constexpr std::int32_t kMaxTokens = 1 << 20;  // more than any context there is

struct Options {
  LoadOptions load;
  std::string kv_dtype = "f16";
  std::string kv_cache_bytes = "auto";
  std::int32_t prompt_tokens = 256;
  std::int32_t output_tokens = 128;
  std::string json;
};

absl::StatusOr<CapacityFigures> FiguresOf(const Options& options, const RunnerInfo& info) {
  CapacityFigures figures;
  figures.block_size = info.block_size;
  figures.kv_blocks = info.num_kv_blocks;
  figures.context = info.max_context;
  figures.max_num_seqs = options.load.max_num_seqs;
  figures.prompt_tokens = options.prompt_tokens;
  figures.output_tokens = options.output_tokens;
  const std::int32_t request = options.prompt_tokens + options.output_tokens;
  if (request <= figures.context && SequencesThatFit(figures, request) > 0) return figures;
  return absl::InvalidArgumentError(absl::StrCat(
      "--prompt-tokens ", options.prompt_tokens, " and --output-tokens ", options.output_tokens,
      ": want at most ", std::min<std::int64_t>(figures.context, figures.positions()),
      " together, which is what a sequence may have here"));
}

absl::StatusOr<CapacityReport> Examine(Options options) {
  CapacityReport report;
  LoadedModel model;
  {
    ProgressBar bar("loading");
    options.load.progress = [&](std::uint64_t done, std::uint64_t total) {
      bar.Update(done, total);
      report.weight_bytes = total;
    };
    MILLRACE_ASSIGN_OR_RETURN(model, LoadModel(options.load));
  }
  MILLRACE_ASSIGN_OR_RETURN(report.figures, FiguresOf(options, model.runner->info()));
  MILLRACE_RETURN_IF_ERROR(MeasureCapacity(&model, &report.figures));
  report.facts = model.facts;
  report.memory_plan = model.memory_plan;
  report.kv_dtype = options.kv_dtype;
  report.threads = BackendInUse(options.load).first;
  return report;
}

absl::Status Resolve(Options* options) {
  const std::optional<KvDType> kv_dtype = ParseKvDType(options->kv_dtype);
  if (!kv_dtype) return Wrong("--kv-dtype", options->kv_dtype, kKvDTypeChoices);
  options->load.kv_dtype = *kv_dtype;
  MILLRACE_ASSIGN_OR_RETURN(options->load.kv_cache_bytes,
                            ParseAmount("--kv-cache-bytes", options->kv_cache_bytes, true));
  // Room for one token of each in a step.
  options->load.max_num_batched_tokens =
      std::max(options->load.max_num_batched_tokens, options->load.max_num_seqs);
  return CheckLoadOptions(options->load);
}

absl::Status Run(const Options& options) {
  MILLRACE_RETURN_IF_ERROR(CheckWritable("--json", options.json));
  MILLRACE_ASSIGN_OR_RETURN(const CapacityReport report, Examine(options));
  PrintCapacity(report);
  if (options.json.empty()) return absl::OkStatus();
  // A file's strings need not be UTF-8.
  const std::string text =
      CapacityJson(report).dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
  return WriteFile("--json", options.json, text + '\n');
}

}  // namespace

int RunCapacity(int argc, char** argv) {
  CLI::App app(
      "Shows what this machine holds and does for a model: sequences by context, tokens a second "
      "by batch, and what follows for --max-num-seqs of serve and the autoscaler's targets. It "
      "loads the model with serve's memory plan and measures: some seconds for a small model, "
      "minutes for a large one; leave the machine alone meanwhile",
      kName);
  app.footer(
      "Rates hold for requests of --prompt-tokens and --output-tokens on average: give those of "
      "your own load (the histograms millrace_request_prompt_tokens and "
      "millrace_request_generated_tokens have them).\n"
      "To check it: serve with the suggested --max-num-seqs N, then millrace loadgen --target "
      "HOST:PORT --concurrency N --prompt-tokens 256 --output-tokens 128.");
  Options options;
  app.add_option("--model", options.load.path, "The GGUF file")->required();
  app.add_option("--prompt-tokens", options.prompt_tokens, "Tokens of a prompt, on average")
      ->check(CLI::Range(1, kMaxTokens))
      ->capture_default_str();
  app.add_option("--output-tokens", options.output_tokens, "Tokens of an answer, on average")
      ->check(CLI::Range(2, kMaxTokens))
      ->capture_default_str();
  app.add_option("--max-num-seqs", options.load.max_num_seqs,
                 "Sequences at once, at most: the memory plan and the largest batch go up to here")
      ->capture_default_str();
  app.add_option("--kv-dtype", options.kv_dtype, kKvDTypeChoices)->capture_default_str();
  app.add_option("--kv-cache-bytes", options.kv_cache_bytes,
                 "Size of the KV cache, as 2G or 500M; auto: as serve decides")
      ->capture_default_str();
  app.add_option("--threads", options.load.threads,
                 "Worker threads, at most and (0) by default the physical cores the cgroup allows")
      ->check(CLI::Range(0, 1024));
  app.add_option("--json", options.json, "Writes the figures to this file too");
  if (const auto code = ParseFlags(&app, argc, argv)) return *code;
  const absl::Status usage = Resolve(&options);
  if (!usage.ok()) {
    return Fail(kName,
                absl::StrCat(std::string(usage.message()), "; see 'millrace capacity --help'"), 2);
  }
  // Of the server that is measured, only what goes wrong.
  ConfigureLog(LogLevel::kWarning, LogFormat::kText);
  const absl::Status status = Run(options);
  return status.ok() ? 0 : Fail(kName, status);
}

}  // namespace millrace::cli
