#include "runtime/tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/utf8.h"
#include "runtime/tokenizer/added_tokens.h"
#include "runtime/tokenizer/bpe.h"
#include "runtime/tokenizer/byte_alphabet.h"
#include "runtime/tokenizer/nfc.h"
#include "runtime/tokenizer/pre_tokenizer.h"

namespace millrace {
namespace {

// Tokens that end a generation in the chat formats we know, whatever the file says of them.
constexpr std::array<std::string_view, 9> kEndTexts = {
    "<|im_end|>", "<|endoftext|>",   "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
    "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>",  "</s>"};

bool IsSpecial(TokenType type) {
  return type == TokenType::kControl || type == TokenType::kUnknown;
}

// Matched in raw text and written in the file as they read, not in the byte-level alphabet.
bool IsAdded(TokenType type) { return IsSpecial(type) || type == TokenType::kUserDefined; }

// Bytes [begin, end) of a text in which control tokens may be parsed.
struct TrustedRange {
  std::size_t begin;
  std::size_t end;
};

class BpeTokenizer final : public Tokenizer {
 public:
  explicit BpeTokenizer(TokenizerSpec spec) : spec_(std::move(spec)) {}
  absl::Status Init();

  std::uint32_t vocab_size() const override {
    return static_cast<std::uint32_t>(spec_.tokens.size());
  }
  std::vector<std::uint32_t> Encode(std::string_view text,
                                    const EncodeOptions& options) const override;
  std::vector<std::uint32_t> EncodeRuns(std::span<const TextRun> runs,
                                        bool add_special) const override;
  absl::StatusOr<std::string> Decode(std::span<const std::uint32_t> ids,
                                     bool skip_special) const override;
  std::shared_ptr<const TokenBytes> token_bytes() const override { return token_bytes_; }
  std::optional<std::uint32_t> FindToken(std::string_view text) const override;
  std::span<const std::uint32_t> end_tokens() const override { return end_tokens_; }
  std::optional<std::uint32_t> bos() const override { return spec_.bos; }
  std::optional<std::uint32_t> eos() const override { return spec_.eos; }

 private:
  absl::Status CheckSpec() const;
  void IndexTokens();
  void CollectEndTokens();
  std::optional<std::uint32_t> Lookup(std::string_view token) const;
  // The token that is no added one and whose text is `text`.
  std::optional<std::uint32_t> FindNormal(std::string_view text) const;
  // `text` is valid UTF-8; `trusted` is ascending, without overlaps or neighbours.
  std::vector<std::uint32_t> EncodeValid(std::string_view text,
                                         std::span<const TrustedRange> trusted,
                                         bool add_special) const;
  // Text without added tokens.
  void EncodePlain(std::string_view text, BpeModel::Scratch* scratch,
                   std::vector<std::uint32_t>* ids) const;

  TokenizerSpec spec_;
  PreTokenizerTraits family_ = {};
  bool add_bos_ = false;
  absl::flat_hash_map<std::string_view, std::uint32_t> ids_;  // views into spec_.tokens
  AddedTokens added_tokens_;
  std::optional<BpeModel> bpe_;
  std::size_t longest_token_ = 0;  // bytes of its text
  std::shared_ptr<const TokenBytes> token_bytes_;
  std::vector<std::uint32_t> end_tokens_;
};

absl::Status BpeTokenizer::CheckSpec() const {
  const std::size_t size = spec_.tokens.size();
  if (size == 0 || size >= UINT32_MAX) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.tokens has ", size, " entries"));
  }
  if (spec_.types.size() != size) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.token_type has ",
                                                   spec_.types.size(), " entries for ", size,
                                                   " in tokenizer.ggml.tokens"));
  }
  const auto check_id = [size](const char* key, std::uint32_t id) {
    if (id < size) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(key, " is ", id, "; the vocabulary has ", size, " tokens"));
  };
  if (spec_.bos) MILLRACE_RETURN_IF_ERROR(check_id("tokenizer.ggml.bos_token_id", *spec_.bos));
  if (spec_.eos) MILLRACE_RETURN_IF_ERROR(check_id("tokenizer.ggml.eos_token_id", *spec_.eos));
  for (const std::uint32_t id : spec_.extra_end_tokens) {
    MILLRACE_RETURN_IF_ERROR(check_id("an end token of tokenizer.ggml", id));
  }
  const bool no_bos = spec_.add_bos.value_or(false) && !spec_.bos;
  if (no_bos || (spec_.add_eos && !spec_.eos)) {
    return absl::InvalidArgumentError(
        no_bos ? "tokenizer.ggml.add_bos_token is set without tokenizer.ggml.bos_token_id"
               : "tokenizer.ggml.add_eos_token is set without tokenizer.ggml.eos_token_id");
  }
  return absl::OkStatus();
}

void BpeTokenizer::IndexTokens() {
  const std::size_t size = spec_.tokens.size();
  std::vector<std::string> bytes(size);
  std::vector<bool> is_special(size);
  ids_.reserve(size);
  for (std::uint32_t id = 0; id < size; ++id) {
    const std::string& token = spec_.tokens[id];
    const TokenType type = spec_.types[id];
    if (type == TokenType::kUnused) continue;  // no text: padding up to the width of the head
    ids_.try_emplace(token, id);
    longest_token_ = std::max(longest_token_, token.size());
    is_special[id] = IsSpecial(type);
    bytes[id] = IsAdded(type) ? token : FromByteAlphabet(token);
    if (IsAdded(type)) added_tokens_.Add(token, id, IsSpecial(type));
  }
  token_bytes_ = std::make_shared<const TokenBytes>(std::move(bytes), std::move(is_special));
}

void BpeTokenizer::CollectEndTokens() {
  end_tokens_ = spec_.extra_end_tokens;
  if (spec_.eos) end_tokens_.push_back(*spec_.eos);
  for (const std::string_view text : kEndTexts) {
    const auto id = Lookup(text);
    if (id && IsAdded(spec_.types[*id])) end_tokens_.push_back(*id);
  }
  std::sort(end_tokens_.begin(), end_tokens_.end());
  end_tokens_.erase(std::unique(end_tokens_.begin(), end_tokens_.end()), end_tokens_.end());
}

absl::Status BpeTokenizer::Init() {
  MILLRACE_ASSIGN_OR_RETURN(family_, FindPreTokenizer(spec_.pre));
  MILLRACE_RETURN_IF_ERROR(CheckSpec());
  add_bos_ = spec_.bos && spec_.add_bos.value_or(family_.adds_bos);
  IndexTokens();
  MILLRACE_ASSIGN_OR_RETURN(
      bpe_, BpeModel::Create(spec_.merges, [this](std::string_view t) { return Lookup(t); }));
  std::vector<std::string>().swap(spec_.merges);  // now in bpe_
  CollectEndTokens();
  return absl::OkStatus();
}

std::optional<std::uint32_t> BpeTokenizer::Lookup(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

std::optional<std::uint32_t> BpeTokenizer::FindToken(std::string_view text) const {
  const auto added = Lookup(text);
  if (added && IsAdded(spec_.types[*added])) return added;
  return FindNormal(text);
}

std::optional<std::uint32_t> BpeTokenizer::FindNormal(std::string_view text) const {
  if (text.size() > longest_token_) return std::nullopt;
  const auto normal = Lookup(ToByteAlphabet(text));
  if (normal && !IsAdded(spec_.types[*normal])) return normal;
  return std::nullopt;
}

void BpeTokenizer::EncodePlain(std::string_view text, BpeModel::Scratch* scratch,
                               std::vector<std::uint32_t>* ids) const {
  std::string normalized;
  if (family_.nfc && !IsTriviallyNfc(text)) {
    normalized = NormalizeNfc(text);
    text = normalized;
  }
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = WordEnd(family_.kind, text, begin);
    const std::string_view word = text.substr(begin, end - begin);
    begin = end;
    if (family_.whole_words) {
      if (const auto id = FindNormal(word)) {
        ids->push_back(*id);
        continue;
      }
    }
    bpe_->Encode(word, scratch, ids);
  }
}

std::vector<std::uint32_t> BpeTokenizer::EncodeValid(std::string_view text,
                                                     std::span<const TrustedRange> trusted,
                                                     bool add_special) const {
  std::vector<std::uint32_t> ids;
  BpeModel::Scratch scratch;
  if (add_special && add_bos_) ids.push_back(*spec_.bos);
  std::size_t plain_begin = 0;
  for (std::size_t position = 0; position < text.size();) {
    if (!added_tokens_.MayStart(text[position])) {
      ++position;
      continue;
    }
    while (!trusted.empty() && trusted.front().end <= position) trusted = trusted.subspan(1);
    const bool is_trusted = !trusted.empty() && trusted.front().begin <= position;
    const auto match = added_tokens_.Find(text, position, is_trusted ? trusted.front().end : 0);
    if (!match) {
      ++position;
      continue;
    }
    EncodePlain(text.substr(plain_begin, position - plain_begin), &scratch, &ids);
    ids.push_back(match->id);
    position += match->size;
    plain_begin = position;
  }
  EncodePlain(text.substr(plain_begin), &scratch, &ids);
  if (add_special && spec_.add_eos) ids.push_back(*spec_.eos);
  return ids;
}

std::vector<std::uint32_t> BpeTokenizer::Encode(std::string_view text,
                                                const EncodeOptions& options) const {
  std::string repaired;
  if (ValidUtf8Prefix(text) < text.size()) {
    repaired = ReplaceInvalidUtf8(text);
    text = repaired;
  }
  const TrustedRange everything = {0, text.size()};
  return EncodeValid(text, std::span(&everything, options.parse_special ? 1 : 0),
                     options.add_special);
}

std::vector<std::uint32_t> BpeTokenizer::EncodeRuns(std::span<const TextRun> runs,
                                                    bool add_special) const {
  std::string text;
  std::vector<TrustedRange> trusted;
  for (const TextRun& run : runs) {
    const std::size_t begin = text.size();
    // Each run by itself: bytes of a client must not complete a character of the template.
    text.append(ReplaceInvalidUtf8(run.text));
    if (!run.trusted || text.size() == begin) continue;
    if (!trusted.empty() && trusted.back().end == begin) {
      trusted.back().end = text.size();
    } else {
      trusted.push_back({begin, text.size()});
    }
  }
  return EncodeValid(text, trusted, add_special);
}

absl::StatusOr<std::string> BpeTokenizer::Decode(std::span<const std::uint32_t> ids,
                                                 bool skip_special) const {
  std::string bytes;
  for (const std::uint32_t id : ids) {
    if (id >= vocab_size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", id, " is not in the vocabulary of ", vocab_size(), " tokens"));
    }
    if (skip_special && token_bytes_->is_special(id)) continue;
    bytes.append(token_bytes_->bytes(id));
  }
  return ReplaceInvalidUtf8(bytes);
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Create(TokenizerSpec spec) {
  auto tokenizer = std::make_unique<BpeTokenizer>(std::move(spec));
  MILLRACE_RETURN_IF_ERROR(tokenizer->Init());
  return std::unique_ptr<const Tokenizer>(std::move(tokenizer));
}

}  // namespace millrace
