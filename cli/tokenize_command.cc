// `millrace tokenize`: JSON strings in, JSON arrays of ids out, or the reverse, a line each.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "cli/cli_util.h"
#include "cli/commands.h"
#include "runtime/gguf/gguf_file.h"
#include "runtime/runner/model_loader.h"
#include "runtime/tokenizer/tokenizer.h"

namespace millrace::cli {
namespace {

constexpr char kName[] = "tokenize";

struct Options {
  std::string model;
  bool no_special = false;
  bool decode = false;
};

absl::StatusOr<std::shared_ptr<const Tokenizer>> OpenTokenizer(const std::string& path) {
  MILLRACE_ASSIGN_OR_RETURN(const std::shared_ptr<const GgufFile> file, GgufFile::Open(path));
  return LoadTokenizer(*file);
}

absl::StatusOr<std::string> EncodeLine(const Tokenizer& tokenizer, const std::string& line,
                                       bool no_special) {
  const nlohmann::json text = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!text.is_string()) return absl::InvalidArgumentError("not a JSON string");
  const EncodeOptions options = {.parse_special = !no_special, .add_special = !no_special};
  return nlohmann::json(tokenizer.Encode(text.get_ref<const std::string&>(), options)).dump();
}

absl::StatusOr<std::string> DecodeLine(const Tokenizer& tokenizer, const std::string& line,
                                       bool no_special) {
  const nlohmann::json array = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!array.is_array()) return absl::InvalidArgumentError("not a JSON array of ids");
  std::vector<std::uint32_t> ids;
  for (const nlohmann::json& id : array) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > UINT32_MAX) {
      return absl::InvalidArgumentError(absl::StrCat("entry ", ids.size(), " is not a token id"));
    }
    ids.push_back(static_cast<std::uint32_t>(id.get<std::uint64_t>()));
  }
  MILLRACE_ASSIGN_OR_RETURN(const std::string text, tokenizer.Decode(ids, no_special));
  return nlohmann::json(text).dump();
}

int ConvertLines(const Tokenizer& tokenizer, const Options& options) {
  std::string line;
  for (std::uint64_t number = 1; std::getline(std::cin, line); ++number) {
    const absl::StatusOr<std::string> out = options.decode
                                                ? DecodeLine(tokenizer, line, options.no_special)
                                                : EncodeLine(tokenizer, line, options.no_special);
    if (!out.ok()) {
      const std::string message(out.status().message().data(), out.status().message().size());
      return Fail(kName, absl::StrCat("line ", number, ": ", message));
    }
    // Flushed line by line: whoever pipes may wait for this answer before asking on.
    if (std::fprintf(stdout, "%s\n", out->c_str()) < 0 || std::fflush(stdout) != 0) {
      return Fail(kName, "cannot write to the standard output");
    }
  }
  return 0;
}

}  // namespace

int RunTokenize(int argc, char** argv) {
  CLI::App app("Turns text into token ids: one JSON string a line in, one JSON array a line out.",
               kName);
  Options options;
  app.add_option("--model", options.model, "GGUF file whose vocabulary to use")->required();
  app.add_flag("--no-special", options.no_special,
               "take the text of control tokens as text and add no begin or end token; with "
               "--decode, leave control tokens out");
  app.add_flag("--decode", options.decode, "the reverse: arrays of ids in, strings out");
  if (const auto code = ParseFlags(&app, argc, argv)) return *code;
  const auto tokenizer = OpenTokenizer(options.model);
  if (!tokenizer.ok()) return Fail(kName, tokenizer.status());
  return ConvertLines(**tokenizer, options);
}

}  // namespace millrace::cli
