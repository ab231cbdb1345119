// Splits text into the words that byte-pair merges never cross. Each scanner gives the matches of
// its family's regular expression without a regular expression: one pass, no recursion, a few
// words of stack. Pure functions, thread-safe.
#ifndef MILLRACE_RUNTIME_TOKENIZER_PRE_TOKENIZER_H_
#define MILLRACE_RUNTIME_TOKENIZER_PRE_TOKENIZER_H_

#include <cstddef>
#include <string_view>

#include "absl/status/statusor.h"

namespace millrace {

enum class PreTokenizer {
  // (?i:'s|'t|'re|'ve|'m|'ll|'d) | [^\r\n\p{L}\p{N}]?\p{L}+ | \p{N} | ?[^\s\p{L}\p{N}]+[\r\n]*
  // | \s*[\r\n]+ | \s+(?!\S) | \s+
  kQwen2,
  // Every digit alone, then between them 's|'t|'re|'ve|'m|'ll|'d | ?\p{L}+ | ?[^\s\p{L}\p{N}]+
  // | \s+(?!\S) | \s+
  kSmolLm,
  // As kQwen2 with \p{N}{1,3}
  kLlamaBpe,
  // 's|'t|'re|'ve|'m|'ll|'d | ?\p{L}+ | ?\p{N}+ | ?[^\s\p{L}\p{N}]+ | \s+(?!\S) | \s+
  kGpt2,
};

// What else goes with a family of vocabularies.
struct PreTokenizerTraits {
  std::string_view name;
  PreTokenizer kind;
  bool nfc;          // text is normalised to NFC first
  bool whole_words;  // a word that is a token is that token, whatever its merges would make of it
  bool adds_bos;     // where the file does not say
};

// "qwen2, smollm, llama-bpe and gpt-2"
inline constexpr char kPreTokenizerNames[] = "qwen2, smollm, llama-bpe and gpt-2";

// The pre-tokenizer that `tokenizer.ggml.pre` names; UNIMPLEMENTED naming it and the known ones.
absl::StatusOr<PreTokenizerTraits> FindPreTokenizer(std::string_view name);

// The end of the word that starts at text[begin].
// REQUIRES: `text` is valid UTF-8, begin < text.size() is where the last word ended, or 0.
std::size_t WordEnd(PreTokenizer kind, std::string_view text, std::size_t begin);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_TOKENIZER_PRE_TOKENIZER_H_
