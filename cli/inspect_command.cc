// `millrace inspect`: what a model file is and what it needs, without reading a tensor.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "cli/cli_util.h"
#include "cli/commands.h"
#include "runtime/runner/model_loader.h"

namespace millrace::cli {
namespace {

constexpr char kName[] = "inspect";

// Values are shown whole up to here; vocabularies and templates are cut.
constexpr std::size_t kShownElements = 8;
constexpr std::size_t kShownBytes = 100;

struct TypeTotal {
  int tensors = 0;
  std::uint64_t bytes = 0;
};

std::map<std::string, TypeTotal> TotalsByType(const GgufFile& file) {
  std::map<std::string, TypeTotal> totals;
  for (const GgufTensor& tensor : file.tensors()) {
    TypeTotal& total = totals[std::string(Info(tensor.dtype).name)];
    ++total.tensors;
    total.bytes += tensor.size_bytes;
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
                   {"bytes", tensor.size_bytes}});
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

void PrintJson(const ModelInspection& model, bool tensors) {
  const ModelFacts& facts = model.facts;
  nlohmann::ordered_json out = {
      {"path", model.file->path()},
      {"gguf_version", model.file->version()},
      {"name", facts.name},
      {"architecture", facts.architecture},
      {"quantisation", facts.quantisation},
      {"file_bytes", facts.file_bytes},
      {"parameters", facts.parameters},
      {"active_parameters", facts.active_parameters},
      {"layers", facts.layers},
      {"hidden", facts.hidden},
      {"experts", facts.experts},
      {"experts_per_token", facts.experts_per_token},
      {"vocab_size", facts.vocab_size},
      {"context_length", model.trained_context},
      {"kv_bytes_per_token",
       {{"f16", model.kv_bytes_per_token_f16}, {"f32", model.kv_bytes_per_token_f32}}}};
  for (const auto& [type, total] : TotalsByType(*model.file)) {
    out["tensor_types"][type] = {{"tensors", total.tensors}, {"bytes", total.bytes}};
  }
  for (const auto& [key, value] : model.file->metadata()) {
    out["metadata"][std::string(key)] = ToJson(value);
  }
  if (tensors) out["tensors"] = TensorsJson(*model.file);
  out["memory"] = MemoryJson(model);
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

std::string Sized(std::uint64_t bytes) {
  return bytes >= 1'000'000'000 ? absl::StrFormat("%.2f GB", static_cast<double>(bytes) / 1e9)
                                : absl::StrFormat("%.2f MB", static_cast<double>(bytes) / 1e6);
}

void PrintSummary(const ModelInspection& model) {
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
  PrintLine("vocabulary", absl::StrCat(facts.vocab_size, " tokens"));
  PrintLine("context", absl::StrCat(model.trained_context, " tokens, trained"));
  PrintLine("KV cache", absl::StrCat(model.kv_bytes_per_token_f16, " bytes a token in f16, ",
                                     model.kv_bytes_per_token_f32, " in f32"));
  PrintLine("this machine", model.memory_plan.ok()
                                ? *model.memory_plan
                                : std::string(model.memory_plan.status().message()));
}

void PrintText(const ModelInspection& model, bool tensors) {
  PrintSummary(model);
  std::printf("\n%-8s %8s %12s\n", "type", "tensors", "bytes");
  for (const auto& [type, total] : TotalsByType(*model.file)) {
    std::printf("%-8s %8d %12s\n", type.c_str(), total.tensors, Sized(total.bytes).c_str());
  }
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
  app.add_flag("--verify", verify, "not built yet in this version");
  if (const auto code = ParseFlags(&app, argc, argv)) return *code;
  if (verify) return Fail(kName, "--verify: not built yet in this version", 2);
  const absl::StatusOr<ModelInspection> model = InspectModel(options);
  if (!model.ok()) return Fail(kName, model.status());
  if (json) {
    PrintJson(*model, tensors);
  } else {
    PrintText(*model, tensors);
  }
  return 0;
}

}  // namespace millrace::cli
