// LoadTokenizer of model_loader.h: the `tokenizer.ggml.*` keys of a file become a TokenizerSpec.
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/gguf/gguf_file.h"
#include "runtime/runner/model_loader.h"
#include "runtime/tokenizer/pre_tokenizer.h"
#include "runtime/tokenizer/tokenizer.h"

namespace millrace {
namespace {

// Ends of a turn, a message or an infill document: a generation that reaches one is over.
constexpr std::array<std::string_view, 5> kEndTokenKeys = {
    "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id", "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id", "tokenizer.ggml.fim_sep_token_id"};

absl::Status CheckPresent(const GgufFile& file, std::string_view key) {
  if (file.Find(key) != nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(key), " is missing: the file has no vocabulary that can be used"));
}

absl::Status CheckModel(const GgufFile& file) {
  MILLRACE_RETURN_IF_ERROR(CheckPresent(file, "tokenizer.ggml.model"));
  MILLRACE_ASSIGN_OR_RETURN(const std::string_view model, file.GetString("tokenizer.ggml.model"));
  if (model == "gpt2") return absl::OkStatus();
  const std::string shown(model.substr(0, 64));
  return absl::UnimplementedError(absl::StrCat("tokenizer.ggml.model is '", absl::CHexEscape(shown),
                                               "'; supported is gpt2 (byte-level BPE)"));
}

absl::StatusOr<std::string> ReadPre(const GgufFile& file) {
  if (file.Find("tokenizer.ggml.pre") == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokenizer.ggml.pre is missing, so how to split text is unknown; supported are ",
        kPreTokenizerNames));
  }
  MILLRACE_ASSIGN_OR_RETURN(const std::string_view pre, file.GetString("tokenizer.ggml.pre"));
  return std::string(pre);
}

absl::StatusOr<std::vector<std::string>> ReadStrings(const GgufFile& file, std::string_view key) {
  MILLRACE_RETURN_IF_ERROR(CheckPresent(file, key));
  MILLRACE_ASSIGN_OR_RETURN(const auto strings, file.GetStrings(key));
  return std::vector<std::string>(strings.begin(), strings.end());
}

absl::StatusOr<std::vector<TokenType>> ReadTypes(const GgufFile& file) {
  constexpr std::string_view kKey = "tokenizer.ggml.token_type";
  MILLRACE_RETURN_IF_ERROR(CheckPresent(file, kKey));
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<std::int64_t> values, file.GetInts(kKey));
  std::vector<TokenType> types;
  types.reserve(values.size());
  for (const std::int64_t value : values) {
    // Type 6, a byte token such as <0x0A>, belongs to vocabularies that are not byte-level.
    if (value < static_cast<int>(TokenType::kNormal) ||
        value > static_cast<int>(TokenType::kUnused)) {
      return absl::InvalidArgumentError(
          absl::StrCat(std::string(kKey), "[", types.size(), "] is ", value,
                       "; the types of tokens of a byte-level vocabulary are 1 to 5"));
    }
    types.push_back(static_cast<TokenType>(value));
  }
  return types;
}

absl::StatusOr<std::optional<std::uint32_t>> ReadId(const GgufFile& file, std::string_view key,
                                                    std::size_t vocab_size) {
  if (file.Find(key) == nullptr) return std::nullopt;
  MILLRACE_ASSIGN_OR_RETURN(const std::int64_t id,
                            file.GetInt(key, 0, static_cast<std::int64_t>(vocab_size) - 1));
  return static_cast<std::uint32_t>(id);
}

absl::StatusOr<std::optional<bool>> ReadFlag(const GgufFile& file, std::string_view key) {
  if (file.Find(key) == nullptr) return std::nullopt;
  MILLRACE_ASSIGN_OR_RETURN(const bool flag, file.GetBool(key));
  return flag;
}

absl::Status ReadSpecialTokens(const GgufFile& file, TokenizerSpec* spec) {
  const std::size_t size = spec->tokens.size();
  MILLRACE_ASSIGN_OR_RETURN(spec->bos, ReadId(file, "tokenizer.ggml.bos_token_id", size));
  MILLRACE_ASSIGN_OR_RETURN(spec->eos, ReadId(file, "tokenizer.ggml.eos_token_id", size));
  MILLRACE_ASSIGN_OR_RETURN(spec->add_bos, ReadFlag(file, "tokenizer.ggml.add_bos_token"));
  MILLRACE_ASSIGN_OR_RETURN(const std::optional<bool> add_eos,
                            ReadFlag(file, "tokenizer.ggml.add_eos_token"));
  spec->add_eos = add_eos.value_or(false);
  for (const std::string_view key : kEndTokenKeys) {
    MILLRACE_ASSIGN_OR_RETURN(const std::optional<std::uint32_t> id, ReadId(file, key, size));
    if (id) spec->extra_end_tokens.push_back(*id);
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerSpec> ReadSpec(const GgufFile& file) {
  TokenizerSpec spec;
  MILLRACE_RETURN_IF_ERROR(CheckModel(file));
  MILLRACE_ASSIGN_OR_RETURN(spec.pre, ReadPre(file));
  MILLRACE_ASSIGN_OR_RETURN(spec.tokens, ReadStrings(file, "tokenizer.ggml.tokens"));
  MILLRACE_ASSIGN_OR_RETURN(spec.types, ReadTypes(file));
  MILLRACE_ASSIGN_OR_RETURN(spec.merges, ReadStrings(file, "tokenizer.ggml.merges"));
  MILLRACE_RETURN_IF_ERROR(ReadSpecialTokens(file, &spec));
  return spec;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadTokenizer(const GgufFile& file) {
  auto spec = ReadSpec(file);
  if (!spec.ok()) return WithContext(file.path(), spec.status());
  auto tokenizer = Tokenizer::Create(*std::move(spec));
  if (!tokenizer.ok()) return WithContext(file.path(), tokenizer.status());
  return std::shared_ptr<const Tokenizer>(*std::move(tokenizer));
}

}  // namespace millrace
