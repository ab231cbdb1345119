#include "cli/serve_options.h"

#include <CLI/CLI.hpp>
#include <array>
#include <cctype>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "cli/cli_util.h"
#include "cli/version.h"
#include "runtime/backend/factory.h"
#include "service/http_server.h"

namespace millrace::cli {
namespace {

constexpr char kName[] = "serve";
constexpr int kMaxThreads = 1024;

// What flags are before they are understood.
struct Raw {
  std::string context = "auto";
  std::string kv_dtype = "f16";
  std::string kv_cache_bytes = "auto";
  double itl_target_ms = 250;
  double drain_seconds = 45;
  std::string log_level = "info";
  std::string log_format = "text";
  std::vector<std::string> gateways;
  std::array<std::string, 4> later;  // values of flags of later versions
};

constexpr std::array<std::string_view, 4> kLaterFlags = {"--http", "--tls-cert", "--tls-key",
                                                         "--tls-ca"};

void AddModelFlags(CLI::App* app, ServeOptions* options, Raw* raw) {
  app->add_option("--model", options->load.path, "The GGUF file")->required();
  app->add_option("--model-name", options->model_name,
                  "The name clients may ask for (default: the file's general.name)");
  app->add_option("--chat-template", options->chat_template_file,
                  "A file with a Jinja chat template, instead of the model's own");
  app->add_option("--device", options->load.device,
                  "auto (a GPU where there is one and this build has CUDA), cpu, cuda or cuda:N")
      ->capture_default_str();
  app->add_option("--matmul", options->load.matmul, kMatmulHelp)->capture_default_str();
  app->add_option("--ctx", raw->context,
                  "Context in tokens; auto: the model's, or what memory holds")
      ->capture_default_str();
  app->add_option("--kv-dtype", raw->kv_dtype,
                  "Type of the KV cache: f16, f32, q8_0 or fp8 (E4M3); the last two take half the "
                  "memory of f16")
      ->capture_default_str();
  app->add_option("--block-size", options->load.block_size,
                  "Tokens in a block of the KV cache: 16, 32 or 64")
      ->capture_default_str();
  app->add_option("--kv-cache-bytes", raw->kv_cache_bytes,
                  "Size of the KV cache, as 2G or 500M; auto: from context, sequences and memory")
      ->capture_default_str();
  app->add_option("--kv-cache-fraction", options->load.kv_cache_fraction,
                  "On a GPU, how much of the memory that weights leave an automatic KV cache takes")
      ->capture_default_str();
  app->add_option("--threads", options->load.threads,
                  "Worker threads, at most and (0) by default the physical cores the cgroup allows")
      ->capture_default_str();
  app->add_option("--cpu-isa", options->load.cpu_isa,
                  absl::StrCat(kCpuIsaChoices, "; for tests and measurements"))
      ->capture_default_str();
  app->add_option("--weight-cache", options->load.weight_cache, kWeightCacheHelp);
}

void AddServingFlags(CLI::App* app, ServeOptions* options, Raw* raw) {
  app->add_option("--listen", options->server.listen, "HOST:PORT of gRPC; port 0: any free one")
      ->capture_default_str();
  app->add_option("--metrics", options->server.metrics, "HOST:PORT of /metrics, /livez and /readyz")
      ->capture_default_str();
  app->add_option("--max-num-seqs", options->load.max_num_seqs, "Sequences that run at once")
      ->capture_default_str();
  app->add_option("--max-num-batched-tokens", options->load.max_num_batched_tokens,
                  "Tokens computed in one step")
      ->capture_default_str();
  app->add_option("--max-queue", options->scheduler.max_queue,
                  "Sequences that wait at most; a tenant with less than its share of a full queue "
                  "takes a place of the one with the most")
      ->capture_default_str();
  app->add_option("--max-queue-tokens", options->scheduler.max_queue_tokens,
                  "Prompt tokens that wait at most; 0: 4 times the KV cache")
      ->capture_default_str();
  app->add_option(
         "--itl-target", raw->itl_target_ms,
         "Milliseconds between two tokens of a stream that prompts are cut into chunks for")
      ->capture_default_str();
  app->add_option("--drain-seconds", raw->drain_seconds,
                  "How long running requests may go on after SIGTERM")
      ->capture_default_str();
  app->add_option(
         "--gateway", raw->gateways,
         "A network (10.0.0.0/8) of gateways, repeatable: only from there counts the header "
         "x-gateway-inference-fairness-id, and a priority above 0")
      ->delimiter(',')
      ->allow_extra_args(false);
  app->add_option("--record", options->scheduler.record_path,
                  "Writes all that arrives and is decided to this file, prompts and answers too; "
                  "tools/sim --replay plays it again")
      ->type_name("FILE");
  app->add_option("--log-level", raw->log_level, "debug, info, warning or error")
      ->capture_default_str();
  app->add_option("--log-format", raw->log_format, "text or json")->capture_default_str();
  app->set_config("--config", "", "A file with these flags: name = value, one a line");
  // A name with a mistake in it must not leave a default in its place.
  app->allow_config_extras(CLI::config_extras_mode::error);
  for (std::size_t i = 0; i < kLaterFlags.size(); ++i) {
    app->add_option(std::string(kLaterFlags[i]), raw->later[i], "not built yet in this version");
  }
}

// --max-queue -> MILLRACE_MAX_QUEUE.
void ReadEnvironment(CLI::App* app) {
  for (CLI::Option* option : app->get_options()) {
    if (option->get_lnames().empty() || option->get_lnames()[0] == "help") continue;
    std::string name = "MILLRACE_" + option->get_lnames()[0];
    for (char& c : name) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
    option->envname(name);
  }
}

absl::Status RefuseLaterFlags(const ServeOptions& options, const Raw& raw) {
  const auto later = [](std::string_view flag) {
    return absl::UnimplementedError(
        absl::StrCat(std::string(flag), ": not built yet in this version"));
  };
  for (std::size_t i = 0; i < kLaterFlags.size(); ++i) {
    if (!raw.later[i].empty()) return later(kLaterFlags[i]);
  }
  return absl::OkStatus();
}

absl::StatusOr<Duration> ParseTime(std::string_view flag, double value, double unit_seconds) {
  constexpr double kMaxSeconds = 1e6;
  const double seconds = value * unit_seconds;
  if (!(std::isfinite(seconds) && seconds >= 0 && seconds <= kMaxSeconds)) {
    return Wrong(flag, absl::StrCat(value), "a number from 0 to 1e6 seconds");
  }
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

absl::Status CheckRanges(const ServeOptions& options) {
  if (options.scheduler.max_queue < 0 || options.scheduler.max_queue_tokens < 0) {
    return absl::InvalidArgumentError("--max-queue and --max-queue-tokens: want at least 0");
  }
  if (options.load.threads < 0 || options.load.threads > kMaxThreads) {
    return Wrong("--threads", absl::StrCat(options.load.threads), "0 (all cores) to 1024");
  }
  const std::string& isa = options.load.cpu_isa;
  if (!IsCpuIsaChoice(isa)) return Wrong("--cpu-isa", isa, kCpuIsaChoices);
  MILLRACE_RETURN_IF_ERROR(CheckLoadOptions(options.load));
  if (!IsDeviceChoice(options.load.device)) {
    return Wrong("--device", options.load.device, kDeviceChoices);
  }
  const double fraction = options.load.kv_cache_fraction;
  if (!(fraction > 0.0 && fraction <= 1.0)) {
    return Wrong("--kv-cache-fraction", absl::StrCat(fraction), "a number above 0, at most 1");
  }
  MILLRACE_RETURN_IF_ERROR(ParseHostPort(options.server.listen).status());
  return ParseHostPort(options.server.metrics).status();
}

absl::Status Resolve(const Raw& raw, ServeOptions* options) {
  MILLRACE_RETURN_IF_ERROR(RefuseLaterFlags(*options, raw));
  MILLRACE_ASSIGN_OR_RETURN(options->load.context, ParseAmount("--ctx", raw.context, false));
  MILLRACE_ASSIGN_OR_RETURN(options->load.kv_cache_bytes,
                            ParseAmount("--kv-cache-bytes", raw.kv_cache_bytes, true));
  const std::optional<KvDType> kv_dtype = ParseKvDType(raw.kv_dtype);
  if (!kv_dtype) return Wrong("--kv-dtype", raw.kv_dtype, kKvDTypeChoices);
  options->load.kv_dtype = *kv_dtype;
  MILLRACE_ASSIGN_OR_RETURN(options->scheduler.itl_target,
                            ParseTime("--itl-target", raw.itl_target_ms, 1e-3));
  MILLRACE_ASSIGN_OR_RETURN(options->drain, ParseTime("--drain-seconds", raw.drain_seconds, 1));
  MILLRACE_ASSIGN_OR_RETURN(options->log_level, ParseLogLevel(raw.log_level));
  MILLRACE_ASSIGN_OR_RETURN(options->log_format, ParseLogFormat(raw.log_format));
  MILLRACE_ASSIGN_OR_RETURN(options->server.gateways, TrustedGateways::Parse(raw.gateways));
  options->scheduler.max_num_seqs = options->load.max_num_seqs;
  options->scheduler.max_num_batched_tokens = options->load.max_num_batched_tokens;
  return CheckRanges(*options);
}

}  // namespace

std::variant<ServeOptions, int> ParseServeOptions(int argc, char** argv) {
  CLI::App app("Serves a model over gRPC until SIGTERM or SIGINT, then drains", kName);
  app.footer(
      "Every flag may also stand in the environment (MILLRACE_MAX_QUEUE for --max-queue) or in the "
      "file of --config; the command line wins.\n"
      "SIGUSR1 forgets all prompts that are kept for their prefixes.\n"
      "When requests are answered, one line on stdout says so: millrace ready grpc=HOST:PORT "
      "metrics=HOST:PORT");
  ServeOptions options;
  options.server = {.listen = "0.0.0.0:50051", .metrics = "0.0.0.0:9400", .version = kVersion};
  Raw raw;
  AddModelFlags(&app, &options, &raw);
  AddServingFlags(&app, &options, &raw);
  ReadEnvironment(&app);
  if (const auto code = ParseFlags(&app, argc, argv)) return *code;
  const absl::Status status = Resolve(raw, &options);
  if (!status.ok()) {
    return Fail(kName, std::string(status.message()) + "; see 'millrace serve --help'", 2);
  }
  return options;
}

}  // namespace millrace::cli
