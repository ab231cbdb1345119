// `millrace inspect`: what a model file is, whether this machine can serve it and how fast at most;
// reads tensors only to verify them.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "cli/bench_probe.h"
#include "cli/cli_util.h"
#include "cli/commands.h"
#include "runtime/backend/cuda_weight_bytes.h"
#include "runtime/runner/model_loader.h"
#include "runtime/runner/verify_model.h"
#include "runtime/tokenizer/chat_template.h"

namespace millrace::cli {
namespace {

constexpr char kName[] = "inspect";

// Values are shown whole up to here; vocabularies and templates are cut.
constexpr std::size_t kShownElements = 8;
constexpr std::size_t kShownBytes = 100;

// Weights of a token that a server's caches may hold from step to step.
constexpr std::uint64_t kCachedBytes = std::uint64_t{128} << 20;

struct TypeTotal {
  int tensors = 0;
  std::uint64_t bytes = 0;
  std::uint64_t cuda_bytes = 0;  // once the CUDA backend has laid them out
};

std::uint64_t CudaBytes(const GgufTensor& tensor) {
  return static_cast<std::uint64_t>(CudaWeightBytes(tensor.dtype, tensor.shape));
}

std::map<std::string, TypeTotal> TotalsByType(const GgufFile& file) {
  std::map<std::string, TypeTotal> totals;
  for (const GgufTensor& tensor : file.tensors()) {
    TypeTotal& total = totals[std::string(Info(tensor.dtype).name)];
    ++total.tensors;
    total.bytes += tensor.size_bytes;
    total.cuda_bytes += CudaBytes(tensor);
  }
  return totals;
}

nlohmann::json Shortened(std::string_view text) {
  if (text.size() <= kShownBytes) return text;
  return absl::StrCat(std::string(text.substr(0, kShownBytes)), "... (", text.size(), " bytes)");
}

nlohmann::json ToJson(const GgufArray& array) {
  return std::visit(
      [](const auto& values) -> nlohmann::json {
        nlohmann::json out = nlohmann::json::array();
        for (std::size_t i = 0; i < values.size() && i < kShownElements; ++i) {
          using T = std::decay_t<decltype(values)>;
          if constexpr (std::is_same_v<T, std::vector<std::string_view>>) {
            out.push_back(Shortened(values[i]));
          } else {
            const typename T::value_type value = values[i];
            out.push_back(value);
          }
        }
        if (values.size() > kShownElements) {
          out.push_back(absl::StrCat("... (", values.size(), " elements)"));
        }
        return out;
      },
      array);
}

nlohmann::json ToJson(const GgufValue& value) {
  return std::visit(
      [](const auto& v) -> nlohmann::json {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, GgufArray>) {
          return ToJson(v);
        } else if constexpr (std::is_same_v<T, std::string_view>) {
          return Shortened(v);
        } else {
          return v;
        }
      },
      value);
}

nlohmann::ordered_json TensorsJson(const GgufFile& file) {
  auto out = nlohmann::ordered_json::array();
  for (const GgufTensor& tensor : file.tensors()) {
    out.push_back({{"name", tensor.name},
                   {"type", Info(tensor.dtype).name},
                   {"shape", tensor.shape},
                   {"offset_bytes", tensor.offset_bytes},
                   {"bytes", tensor.size_bytes},
                   {"cuda_bytes", CudaBytes(tensor)}});
  }
  return out;
}

// What else a person wants to know of a file before serving it.
struct Findings {
  std::string vocabulary;     // "4096 tokens", or why it cannot be used
  std::string chat_template;  // "runs", "none", or why it is refused
  double read_gb_per_second = 0;
  // Of one sequence, by reading each weight that a token uses once and nothing else; absent where
  // caches hold so few of them that memory is no limit.
  std::optional<double> most_tokens_per_second;
  std::optional<VerifyReport> verified;
};

std::string ChatTemplateText(const GgufFile& file) {
  if (file.Find("tokenizer.chat_template") == nullptr) return "none; raw prompts only";
  const auto source = file.GetString("tokenizer.chat_template");
  if (!source.ok()) return std::string(source.status().message());
  const auto parsed = ChatTemplate::Parse(*source, "", "");
  if (parsed.ok()) return "runs";
  return absl::StrCat("refused, raw prompts only: ", std::string(parsed.status().message()));
}

absl::StatusOr<Findings> Find(const LoadOptions& options, const ModelInspection& model,
                              bool verify) {
  Findings found;
  const auto tokenizer = LoadTokenizer(*model.file);
  found.vocabulary = tokenizer.ok() ? absl::StrCat((*tokenizer)->vocab_size(), " tokens")
                                    : std::string(tokenizer.status().message());
  found.chat_template = ChatTemplateText(*model.file);
  const int threads = BackendInUse(options).first;
  found.read_gb_per_second = MeasureReadRate(threads, model.available_bytes);
  if (model.weight_bytes_per_token > kCachedBytes) {
    found.most_tokens_per_second =
        found.read_gb_per_second * 1e9 / static_cast<double>(model.weight_bytes_per_token);
  }
  if (verify) {
    ProgressBar bar("verifying");
    const auto progress = [&bar](std::uint64_t done, std::uint64_t all) { bar.Update(done, all); };
    MILLRACE_ASSIGN_OR_RETURN(found.verified, VerifyModel(*model.file, threads, progress));
  }
  return found;
}

nlohmann::ordered_json VerifyJson(const VerifyReport& report) {
  nlohmann::ordered_json out = {{"ok", report.faults.empty()}, {"faults", report.faults}};
  for (const VerifiedFile& file : report.files) {
    out["files"].push_back(
        {{"path", file.path}, {"bytes", file.size_bytes}, {"sha256", file.sha256}});
  }
  return out;
}

nlohmann::ordered_json MemoryJson(const ModelInspection& model) {
  nlohmann::ordered_json out = {{"available_bytes", model.available_bytes},
                                {"fits", model.memory_plan.ok()}};
  if (model.memory_plan.ok()) out["context_length"] = model.facts.context_length;
  out["plan"] = model.memory_plan.ok() ? *model.memory_plan
                                       : std::string(model.memory_plan.status().message());
  return out;
}

void PrintJson(const ModelInspection& model, const Findings& found, bool tensors) {
  const ModelFacts& facts = model.facts;
  nlohmann::ordered_json out = {{"path", model.file->path()},
                                {"gguf_version", model.file->version()},
                                {"name", facts.name},
                                {"architecture", facts.architecture},
                                {"quantisation", facts.quantisation},
                                {"file_bytes", facts.file_bytes},
                                {"weight_bytes", model.weight_bytes},
                                {"cuda_weight_bytes", model.cuda_weight_bytes},
                                {"parameters", facts.parameters},
                                {"active_parameters", facts.active_parameters},
                                {"layers", facts.layers},
                                {"hidden", facts.hidden},
                                {"experts", facts.experts},
                                {"experts_per_token", facts.experts_per_token},
                                {"vocab_size", facts.vocab_size},
                                {"context_length", model.trained_context},
                                {"kv_bytes_per_token",
                                 {{"f16", model.kv_bytes_per_token_f16},
                                  {"q8_0", model.kv_bytes_per_token_q8_0},
                                  {"fp8", model.kv_bytes_per_token_fp8},
                                  {"f32", model.kv_bytes_per_token_f32}}}};
  for (const auto& [type, total] : TotalsByType(*model.file)) {
    out["tensor_types"][type] = {
        {"tensors", total.tensors}, {"bytes", total.bytes}, {"cuda_bytes", total.cuda_bytes}};
  }
  for (const auto& [key, value] : model.file->metadata()) {
    out["metadata"][std::string(key)] = ToJson(value);
  }
  if (tensors) out["tensors"] = TensorsJson(*model.file);
  out["memory"] = MemoryJson(model);
  out["vocabulary"] = found.vocabulary;
  out["chat_template"] = found.chat_template;
  out["decode"] = {{"weight_bytes_per_token", model.weight_bytes_per_token},
                   {"read_gb_per_second", found.read_gb_per_second},
                   {"most_tokens_per_second", nullptr}};
  if (found.most_tokens_per_second) {
    out["decode"]["most_tokens_per_second"] = *found.most_tokens_per_second;
  }
  if (found.verified) out["verify"] = VerifyJson(*found.verified);
  // A file's strings need not be UTF-8.
  std::puts(out.dump(1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

void PrintLine(const char* label, const std::string& value) {
  std::printf("%-18s %s\n", label, value.c_str());
}

std::string Counted(std::uint64_t value) {
  return value >= 1'000'000'000 ? absl::StrFormat("%.2f billion", static_cast<double>(value) / 1e9)
                                : absl::StrFormat("%.1f million", static_cast<double>(value) / 1e6);
}

void PrintSummary(const ModelInspection& model, const Findings& found) {
  const ModelFacts& facts = model.facts;
  PrintLine("name", facts.name);
  PrintLine("architecture", facts.architecture);
  PrintLine("quantisation", facts.quantisation);
  PrintLine("file", absl::StrCat(Sized(facts.file_bytes), ", GGUF version ", model.file->version(),
                                 ", ", model.file->tensors().size(), " tensors"));
  PrintLine("parameters", absl::StrCat(Counted(facts.parameters), ", ",
                                       Counted(facts.active_parameters), " of them for one token"));
  std::string shape = absl::StrCat(facts.layers, " layers, hidden ", facts.hidden);
  if (facts.experts > 0) {
    absl::StrAppend(&shape, ", ", facts.experts_per_token, " of ", facts.experts, " experts");
  }
  PrintLine("shape", shape);
  PrintLine("vocabulary", found.vocabulary);
  PrintLine("chat template", found.chat_template);
  PrintLine("context", absl::StrCat(model.trained_context, " tokens, trained"));
  std::string kv = absl::StrCat(model.kv_bytes_per_token_f16, " bytes a token in f16, ",
                                model.kv_bytes_per_token_f32, " in f32, ",
                                model.kv_bytes_per_token_fp8, " in fp8");
  if (model.kv_bytes_per_token_q8_0 > 0) {
    absl::StrAppend(&kv, ", ", model.kv_bytes_per_token_q8_0, " in q8_0");
  }
  PrintLine("KV cache", kv);
  PrintLine("this machine", model.memory_plan.ok()
                                ? absl::StrCat("fits: ", *model.memory_plan)
                                : absl::StrCat("does not fit: ",
                                               std::string(model.memory_plan.status().message())));
  if (model.cuda_weight_bytes != model.weight_bytes) {
    PrintLine("on a GPU", absl::StrCat("weights take ", Sized(model.cuda_weight_bytes), ", ",
                                       Sized(model.weight_bytes), " in the file"));
  }
  const std::string reads =
      absl::StrFormat("%s of weights a token, %.1f GB/s read here",
                      Sized(model.weight_bytes_per_token), found.read_gb_per_second);
  PrintLine("decoding", found.most_tokens_per_second
                            ? absl::StrFormat("at most %.1f tokens/s for one sequence (%s); "
                                              "sequences in a batch share reads",
                                              *found.most_tokens_per_second, reads)
                            : absl::StrCat("limited by the caches, not by memory (", reads, ")"));
  if (!found.verified) return;
  for (const VerifiedFile& file : found.verified->files) {
    PrintLine("sha256", absl::StrCat(file.sha256, "  ", file.path));
  }
  PrintLine("weights", found.verified->faults.empty() ? "all finite numbers"
                                                      : "NOT all finite numbers, see below");
}

// The last column stays empty where a GPU holds what the file does.
void PrintTypes(const GgufFile& file) {
  std::printf("\n%-8s %8s %12s %12s\n", "type", "tensors", "bytes", "on a GPU");
  for (const auto& [type, total] : TotalsByType(file)) {
    const std::string on_gpu =
        total.cuda_bytes == total.bytes ? "" : absl::StrFormat(" %12s", Sized(total.cuda_bytes));
    std::printf("%-8s %8d %12s%s\n", type.c_str(), total.tensors, Sized(total.bytes).c_str(),
                on_gpu.c_str());
  }
}

void PrintText(const ModelInspection& model, const Findings& found, bool tensors) {
  PrintSummary(model, found);
  PrintTypes(*model.file);
  std::printf("\nmetadata\n");
  for (const auto& [key, value] : model.file->metadata()) {
    const std::string text =
        ToJson(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    std::printf("  %-42s %s\n", std::string(key).c_str(), text.c_str());
  }
  if (!tensors) return;
  std::printf("\n%-36s %-6s %-20s %12s\n", "tensor", "type", "shape", "bytes");
  for (const GgufTensor& tensor : model.file->tensors()) {
    std::printf("%-36s %-6s %-20s %12llu\n", std::string(tensor.name).c_str(),
                std::string(Info(tensor.dtype).name).c_str(),
                absl::StrJoin(tensor.shape, " x ").c_str(),
                static_cast<unsigned long long>(tensor.size_bytes));
  }
}

}  // namespace

int RunInspect(int argc, char** argv) {
  CLI::App app("Shows what a model file is, and whether this machine can serve it", kName);
  LoadOptions options;
  bool json = false;
  bool tensors = false;
  bool verify = false;
  app.add_option("FILE", options.path, "The GGUF file")->required();
  app.add_flag("--json", json, "Prints one JSON object");
  app.add_flag("--tensors", tensors, "Lists every tensor");
  app.add_flag("--verify", verify,
               "Reads every byte: the SHA-256 of each file, and whether all weights are finite");
  if (const auto code = ParseFlags(&app, argc, argv)) return *code;
  const absl::StatusOr<ModelInspection> model = InspectModel(options);
  if (!model.ok()) return Fail(kName, model.status());
  const absl::StatusOr<Findings> found = Find(options, *model, verify);
  if (!found.ok()) return Fail(kName, found.status());
  if (json) {
    PrintJson(*model, *found, tensors);
  } else {
    PrintText(*model, *found, tensors);
  }
  if (!found->verified || found->verified->faults.empty()) return 0;
  for (const std::string& fault : found->verified->faults) Fail(kName, fault);
  return 1;
}

}  // namespace millrace::cli
