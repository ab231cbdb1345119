// From template source to tokens, with the whitespace rules that chat templates are written for:
// trim_blocks and lstrip_blocks on, one trailing newline dropped, "-" and "+" at the markers.
#ifndef MILLRACE_RUNTIME_TOKENIZER_JINJA_LEXER_H_
#define MILLRACE_RUNTIME_TOKENIZER_JINJA_LEXER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace millrace::jinja {

enum class TokenKind : std::uint8_t {
  kData,        // text outside of markers
  kBlockBegin,  // {%
  kBlockEnd,
  kPrintBegin,  // {{
  kPrintEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  std::string text;  // strings without quotes, escapes resolved
  int line;
};

// INVALID_ARGUMENT with the line for what no template may hold.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace millrace::jinja

#endif  // MILLRACE_RUNTIME_TOKENIZER_JINJA_LEXER_H_
