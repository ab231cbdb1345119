// Byte-level BPE from a model file's own vocabulary and merges. Equal to Hugging Face `tokenizers`
// on the pre-tokenizers it knows; linear in the input, no recursion.
//
// Immutable after Create and thread-safe.
#ifndef MILLRACE_RUNTIME_TOKENIZER_TOKENIZER_H_
#define MILLRACE_RUNTIME_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/token_bytes.h"

namespace millrace {

// `tokenizer.ggml.token_type` of a GGUF file.
enum class TokenType : std::uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // special: only parsed on request, no text when special tokens are skipped
  kUserDefined = 4,  // <think>, <tool_call>: parsed anywhere, always text
  kUnused = 5,
};

// What a tokenizer is built from: the `tokenizer.ggml.*` keys of a file, copied out of it.
struct TokenizerSpec {
  std::string pre;                  // of kPreTokenizerNames; others are refused by name
  std::vector<std::string> tokens;  // in the byte-level alphabet, as in the file
  std::vector<TokenType> types;     // one for each token
  std::vector<std::string> merges;  // "left right", in order of rank
  std::optional<std::uint32_t> bos;
  std::optional<std::uint32_t> eos;
  std::optional<bool> add_bos;  // where absent, as the family of `pre` does, if there is a bos
  bool add_eos = false;
  std::vector<std::uint32_t> extra_end_tokens;  // eot, eom, fim_pad... keys of the file
};

// A run of text with where it came from: control tokens are only parsed in trusted runs.
struct TextRun {
  std::string_view text;
  bool trusted = false;  // from the template: control tokens may be parsed
};

struct EncodeOptions {
  bool parse_special = true;  // text of control tokens becomes the token
  bool add_special = true;    // the file's begin and end tokens, if it asks for them
};

class Tokenizer {
 public:
  // INVALID_ARGUMENT naming the key when lengths disagree, an id is out of range or a merge is
  // unknown; UNIMPLEMENTED naming the pre-tokenizer when it is not supported.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Create(TokenizerSpec spec);
  virtual ~Tokenizer() = default;

  virtual std::uint32_t vocab_size() const = 0;
  // `text` is UTF-8; invalid bytes are replaced by U+FFFD first, as Hugging Face does.
  virtual std::vector<std::uint32_t> Encode(std::string_view text,
                                            const EncodeOptions& options) const = 0;
  // The runs of a rendered chat, encoded as one text. Control tokens are parsed only where all
  // their bytes lie in trusted runs; user-defined tokens parse anywhere.
  virtual std::vector<std::uint32_t> EncodeRuns(std::span<const TextRun> runs,
                                                bool add_special) const = 0;
  // Text of ids, whole UTF-8 with U+FFFD for what is not; ids out of range are an error.
  virtual absl::StatusOr<std::string> Decode(std::span<const std::uint32_t> ids,
                                             bool skip_special) const = 0;

  // The bytes of each token, shared with the engine; lives as long as this tokenizer or the
  // pointer.
  virtual std::shared_ptr<const TokenBytes> token_bytes() const = 0;
  // The id whose text is exactly `text`, if there is one.
  virtual std::optional<std::uint32_t> FindToken(std::string_view text) const = 0;
  // Ids that end a generation: the file's end of sequence plus the known end-of-generation tokens
  // (<|im_end|>, <|endoftext|>, <|fim_pad|>...) of its vocabulary; ascending.
  virtual std::span<const std::uint32_t> end_tokens() const = 0;
  virtual std::optional<std::uint32_t> bos() const = 0;
  virtual std::optional<std::uint32_t> eos() const = 0;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_TOKENIZER_TOKENIZER_H_
