// millrace bench: prefill and decode rates of the model runner, with the meaning of llama-bench (-p
// -n -d) and llama-batched-bench (-npl); and probes of the machine itself.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/status.h"
#include "cli/bench_probe.h"
#include "cli/bench_run.h"
#include "cli/cli_util.h"
#include "cli/commands.h"
#include "runtime/backend/cuda_module.h"
#include "runtime/backend/factory.h"
#include "runtime/runner/model_loader.h"

namespace millrace::cli {
namespace {

constexpr char kName[] = "bench";
// More than any context there is.
constexpr std::int32_t kMaxTokens = 1 << 20;

struct Options {
  LoadOptions load;
  std::vector<std::int32_t> prefill = {512};
  std::vector<std::int32_t> decode = {64};
  std::vector<std::int32_t> batch = {1, 8, 32};
  std::vector<std::int32_t> depth = {0};
  int repeat = 3;
  std::string kv_dtype = "f16";
  std::int32_t step_tokens = 512;
  bool no_graphs = false;
  bool no_fusion = false;
  bool same_tokens = false;
  bool shared_prefix = false;
  bool probe = false;
  bool json = false;
};

struct Rate {
  double median, min, max;
};

// What the model ran on: the CPU, or a CUDA device.
struct Device {
  int threads = 0;
  std::string isa;
  std::string id = "cpu";  // or "cuda:0"
  CudaDeviceReport cuda;

  bool is_cuda() const { return id != "cpu"; }
};

struct Row {
  std::string kind;
  std::int32_t batch, tokens, depth;
  bool shared_prefix;  // the depth is one for all
  Rate rate;
};

Rate Summarise(std::vector<double> rates) {
  std::sort(rates.begin(), rates.end());
  return {rates[rates.size() / 2], rates.front(), rates.back()};
}

BenchTokens TokensOf(const Options& options) {
  return options.same_tokens ? BenchTokens::kSame : BenchTokens::kRandom;
}

absl::StatusOr<Row> MeasurePrefill(ModelRunner* runner, const Options& options, std::int32_t tokens,
                                   std::int32_t depth) {
  BenchRun run(runner, 1, TokensOf(options));
  if (tokens + depth > run.positions_each()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--prefill ", tokens, " at --depth ", depth, " does not fit"));
  }
  const SteadyClock clock;
  MILLRACE_RETURN_IF_ERROR(run.Prefill(0, 0, depth));
  std::vector<double> rates;
  for (int i = -1; i < options.repeat; ++i) {  // one run to warm up
    const TimePoint begin = clock.Now();
    MILLRACE_RETURN_IF_ERROR(run.Prefill(0, depth, depth + tokens));
    if (i >= 0) rates.push_back(tokens / ToSeconds(clock.Now() - begin));
  }
  return Row{"prefill", 1, tokens, depth, false, Summarise(std::move(rates))};
}

absl::StatusOr<Row> MeasureDecode(ModelRunner* runner, const Options& options, std::int32_t tokens,
                                  std::int32_t batch, std::int32_t depth) {
  BenchRun run(runner, batch, TokensOf(options), options.shared_prefix ? depth : 0);
  if (tokens + depth + 1 > run.positions_each() || batch > runner->info().max_step_seqs) {
    return absl::InvalidArgumentError(
        absl::StrCat("--decode ", tokens, " of --batch ", batch, " at --depth ", depth,
                     " does not fit; a sequence has room for ", run.positions_each()));
  }
  const SteadyClock clock;
  // A common prefix is computed once; the others have at most an unfinished block to fill.
  const std::int32_t common =
      options.shared_prefix ? depth / runner->info().block_size * runner->info().block_size : 0;
  for (std::int32_t s = 0; s < batch; ++s)
    MILLRACE_RETURN_IF_ERROR(run.Prefill(s, s == 0 ? 0 : common, std::max(1, depth)));
  std::vector<double> rates;
  for (int i = -1; i < options.repeat; ++i) {
    const TimePoint begin = clock.Now();
    for (std::int32_t t = 0; t < tokens; ++t)
      MILLRACE_RETURN_IF_ERROR(run.Decode(batch, std::max(1, depth) + t));
    MILLRACE_RETURN_IF_ERROR(run.Finish());
    if (i >= 0)
      rates.push_back(static_cast<double>(tokens) * batch / ToSeconds(clock.Now() - begin));
  }
  return Row{"decode", batch, tokens, depth, options.shared_prefix, Summarise(std::move(rates))};
}

absl::StatusOr<std::vector<Row>> Measure(ModelRunner* runner, const Options& options) {
  std::vector<Row> rows;
  for (const std::int32_t depth : options.depth) {
    for (const std::int32_t tokens : options.prefill) {
      if (tokens == 0) continue;
      MILLRACE_ASSIGN_OR_RETURN(Row row, MeasurePrefill(runner, options, tokens, depth));
      rows.push_back(std::move(row));
    }
    for (const std::int32_t tokens : options.decode) {
      for (const std::int32_t batch : options.batch) {
        if (tokens == 0 || batch == 0) continue;
        MILLRACE_ASSIGN_OR_RETURN(Row row, MeasureDecode(runner, options, tokens, batch, depth));
        rows.push_back(std::move(row));
      }
    }
  }
  return rows;
}

void PrintTable(const LoadedModel& model, const Device& device, const std::vector<Row>& rows,
                const std::optional<ProbeResult>& probe) {
  std::printf("%s, %s, %s\n", model.facts.name.c_str(), model.facts.quantisation.c_str(),
              model.facts.device.c_str());
  if (device.is_cuda()) {
    std::printf("%.1f of %.1f GB free before loading, graphs %s, fusion %s\n",
                static_cast<double>(device.cuda.free_bytes) / 1e9,
                static_cast<double>(device.cuda.total_bytes) / 1e9,
                device.cuda.graphs ? "on" : "off", device.cuda.fused ? "on" : "off");
  }
  std::printf("\n%-8s %6s %7s %7s %12s %12s %12s\n", "kind", "batch", "tokens", "depth", "tok/s",
              "min", "max");
  for (const Row& row : rows) {
    std::printf("%-8s %6d %7d %7d %12.2f %12.2f %12.2f\n", row.kind.c_str(), row.batch, row.tokens,
                row.depth, row.rate.median, row.rate.min, row.rate.max);
  }
  if (device.cuda.copy_gb_per_second > 0) {
    std::printf("probe: copy within the device %.1f GB/s (read and written), int8 %.0f GOPS (%s)\n",
                device.cuda.copy_gb_per_second, device.cuda.int8_gops, device.isa.c_str());
  }
  if (probe.has_value()) {
    std::printf("probe: read %.1f GB/s, int8 %.0f GOPS (%s)\n", probe->read_gb_per_second,
                probe->int8_gops, probe->isa.c_str());
  }
}

// What every entry says of the device.
nlohmann::json DeviceFields(const Device& device) {
  nlohmann::json fields = {{"threads", device.threads}, {"device", device.id}, {"isa", device.isa}};
  if (device.is_cuda()) {
    fields["device_name"] = device.cuda.name;
    fields["free_bytes"] = device.cuda.free_bytes;
    fields["total_bytes"] = device.cuda.total_bytes;
    fields["multiprocessors"] = device.cuda.multiprocessors;
    fields["driver_version"] = device.cuda.driver_version;
    fields["runtime_version"] = device.cuda.runtime_version;
    fields["graphs"] = device.cuda.graphs;
    fields["fused"] = device.cuda.fused;
  }
  return fields;
}

void PrintJson(const LoadedModel& model, const Device& device, const std::vector<Row>& rows,
               const std::optional<ProbeResult>& probe) {
  nlohmann::json list = nlohmann::json::array();
  const auto add = [&](nlohmann::json entry) {
    entry.update(DeviceFields(device));
    list.push_back(std::move(entry));
  };
  for (const Row& row : rows) {
    add({{"kind", row.kind},
         {"batch", row.batch},
         {"tokens", row.tokens},
         {"depth", row.depth},
         {"shared_prefix", row.shared_prefix},
         {"model", model.facts.name},
         {"batch_invariant", model.facts.batch_invariant},
         {"tokens_per_second",
          {{"median", row.rate.median}, {"min", row.rate.min}, {"max", row.rate.max}}}});
  }
  if (device.cuda.copy_gb_per_second > 0) {
    add({{"kind", "probe"},
         {"copy_gb_per_second", device.cuda.copy_gb_per_second},
         {"int8_gops", device.cuda.int8_gops}});
  }
  if (probe.has_value()) {
    add({{"kind", "probe"},
         {"read_gb_per_second", probe->read_gb_per_second},
         {"int8_gops", probe->int8_gops}});
  }
  std::puts(list.dump(1).c_str());
}

// The device that LoadModel will take, seen before the model fills its memory; its limits too
// where a probe is wanted. Where there is none, loading says why.
Device LookAtDevice(const Options& options) {
  Device device;
  std::tie(device.threads, device.isa) = BackendInUse(options.load);
  const std::optional<std::int32_t> index = CudaDeviceOf(options.load.device);
  if (!index.has_value()) return device;
  absl::StatusOr<CudaDeviceReport> report = ReportCudaDevice(*index, options.probe);
  if (!report.ok()) return device;
  device.id = absl::StrCat("cuda:", *index);
  device.cuda = *std::move(report);
  device.isa = device.cuda.isa;
  return device;
}

// bench has no --ctx: it takes what it measures.
absl::Status SayWhatNeedsContext(const absl::Status& status) {
  if (!absl::StartsWith(status.message(), "--ctx")) return status;
  return {status.code(),
          absl::StrCat(status.message(),
                       "; --depth and the longest of --prefill and --decode take it")};
}

absl::Status Bench(Options options) {
  const auto largest = [](const std::vector<std::int32_t>& v) {
    return v.empty() ? 0 : *std::max_element(v.begin(), v.end());
  };
  const std::int32_t batch = std::max(1, largest(options.batch));
  const std::int64_t longest = std::max(largest(options.prefill), largest(options.decode) + 2) +
                               std::int64_t{largest(options.depth)};
  options.load.max_num_seqs = batch;
  options.load.max_num_batched_tokens = std::max(options.step_tokens, batch);
  options.load.context = longest;
  // The module reads these: they are for measuring alone, no options of a backend.
  if (options.no_graphs) setenv("MILLRACE_CUDA_GRAPHS", "off", /*overwrite=*/1);
  if (options.no_fusion) setenv("MILLRACE_CUDA_FUSION", "off", /*overwrite=*/1);
  const Device device = LookAtDevice(options);
  auto bar = std::make_unique<ProgressBar>("loading");
  options.load.progress = [&bar](std::uint64_t done, std::uint64_t total) {
    bar->Update(done, total);
  };
  absl::StatusOr<LoadedModel> loaded = LoadModel(options.load);
  if (!loaded.ok()) return SayWhatNeedsContext(loaded.status());
  LoadedModel model = *std::move(loaded);
  bar.reset();  // its line is free again
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<Row> rows, Measure(model.runner.get(), options));
  std::optional<ProbeResult> probe;
  if (options.probe && !device.is_cuda()) probe = ProbeMachine(device.threads, device.isa);
  if (options.json) {
    PrintJson(model, device, rows, probe);
  } else {
    PrintTable(model, device, rows, probe);
  }
  return absl::OkStatus();
}

}  // namespace

int RunBench(int argc, char** argv) {
  CLI::App app(
      "Measures prefill and decode of a model; lists are separated by commas, 0 skips a kind",
      kName);
  Options options;
  const auto list = [&app](const char* flag, std::vector<std::int32_t>* values, const char* help) {
    app.add_option(flag, *values, help)
        ->delimiter(',')
        ->check(CLI::Range(0, kMaxTokens))
        ->capture_default_str();
  };
  app.add_option("--model", options.load.path, "The GGUF file")->required();
  list("--prefill", &options.prefill, "Prompt tokens of one sequence");
  list("--decode", &options.decode, "Tokens of each sequence");
  list("--batch", &options.batch, "Sequences that decode together");
  list("--depth", &options.depth, "Positions in the cache before it starts");
  app.add_option("--repeat", options.repeat, "Measured runs of each row")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--device", options.load.device, kDeviceChoices)->capture_default_str();
  app.add_option("--max-num-batched-tokens", options.step_tokens,
                 "Tokens of a step at most: a prompt is computed in chunks of so many")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--matmul", options.load.matmul, kMatmulHelp)->capture_default_str();
  app.add_flag("--no-cuda-graphs", options.no_graphs,
               "On a GPU: launches every kernel by itself, to see what graphs are worth");
  app.add_flag("--no-cuda-fusion", options.no_fusion,
               "On a GPU: no kernel ends with what follows it, to see what that is worth");
  app.add_option("--threads", options.load.threads,
                 "Worker threads, at most and (0) by default the physical cores the cgroup allows");
  app.add_option("--cpu-isa", options.load.cpu_isa, kCpuIsaChoices);
  app.add_option("--weight-cache", options.load.weight_cache, kWeightCacheHelp);
  app.add_option("--kv-dtype", options.kv_dtype, kKvDTypeChoices)->capture_default_str();
  app.add_flag("--same-tokens", options.same_tokens,
               "Token 0 everywhere, so that a batch shares its experts; default: random tokens");
  app.add_flag("--shared-prefix", options.shared_prefix,
               "The positions of --depth are one prefix that a batch has in common, kept once");
  app.add_flag("--probe", options.probe,
               "Also measures what the device can do at most: its memory and its int8 rate");
  app.add_flag("--json", options.json, "Prints a JSON list");
  if (const auto code = ParseFlags(&app, argc, argv)) return *code;
  if (!IsDeviceChoice(options.load.device)) {
    return Fail(kName, absl::StrCat("--device ", options.load.device, ": want ", kDeviceChoices),
                2);
  }
  const absl::Status matmul = CheckMatmul(options.load.matmul, options.load.device);
  if (!matmul.ok()) return Fail(kName, std::string(matmul.message()), 2);
  const std::optional<KvDType> kv_dtype = ParseKvDType(options.kv_dtype);
  if (!kv_dtype) {
    return Fail(kName, absl::StrCat("--kv-dtype ", options.kv_dtype, ": want ", kKvDTypeChoices),
                2);
  }
  options.load.kv_dtype = *kv_dtype;
  if (options.shared_prefix &&
      *std::min_element(options.depth.begin(), options.depth.end()) < options.load.block_size) {
    return Fail(kName,
                absl::StrCat("--shared-prefix: want a --depth of at least ",
                             options.load.block_size, ", which is a block of the cache"),
                2);
  }
  const auto none = [](const std::vector<std::int32_t>& values) {
    return std::all_of(values.begin(), values.end(), [](std::int32_t n) { return n == 0; });
  };
  if (none(options.prefill) && none(options.decode) && !options.probe) {
    return Fail(kName, "--prefill and --decode are both 0: nothing to measure", 2);
  }
  const absl::Status status = Bench(std::move(options));
  return status.ok() ? 0 : Fail(kName, status);
}

}  // namespace millrace::cli
