#include "runtime/tokenizer/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace millrace::jinja {
namespace {

constexpr std::string_view kSpaces = " \t\n\r\v\f";

bool IsSpace(char c) { return kSpaces.find(c) != std::string_view::npos; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// Longest first, so that "==" is not two "=".
constexpr std::array<std::string_view, 27> kOperators = {
    "//", "**", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">",
    "=",  "(",  ")",  "[",  "]",  "{",  "}", ",", ":", ".", "|", ";", "!"};

void AppendUtf8(std::uint32_t code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out->push_back(static_cast<char>(0xC0 | (code >> 6)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xE0 | (code >> 12)));
    out->push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  }
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size()) {
      const std::size_t marker = FindMarker();
      const std::size_t end = std::min(marker, source_.size());
      EmitData(end);
      if (marker >= source_.size()) break;
      MILLRACE_RETURN_IF_ERROR(Markup());
    }
    Emit(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::size_t FindMarker() const {
    for (std::size_t i = at_; i + 1 < source_.size(); ++i) {
      if (source_[i] == '{' &&
          (source_[i + 1] == '%' || source_[i + 1] == '{' || source_[i + 1] == '#')) {
        return i;
      }
    }
    return source_.size();
  }

  // The text before the marker at `end`, cut as the markers on both sides ask for.
  void EmitData(std::size_t end) {
    std::string_view data = std::string_view(source_).substr(at_, end - at_);
    const int line = line_;
    line_ += static_cast<int>(std::count(data.begin(), data.end(), '\n'));
    if (strip_next_) {
      data.remove_prefix(std::min(data.find_first_not_of(kSpaces), data.size()));
    } else if (trim_newline_ && !data.empty() && data.front() == '\n') {
      data.remove_prefix(1);
    }
    const bool at_line_start_before = at_ == 0 || after_newline_trim(data, end);
    if (end < source_.size()) {
      const char sign = end + 2 < source_.size() ? source_[end + 2] : '\0';
      const bool block = source_[end + 1] != '{';
      if (sign == '-') {
        data = data.substr(0, data.find_last_not_of(kSpaces) + 1);
      } else if (block && sign != '+') {
        data = StripLineStart(data, at_line_start_before);
      }
    }
    strip_next_ = trim_newline_ = false;
    if (!data.empty()) tokens_.push_back({TokenKind::kData, std::string(data), line});
    at_ = end;
  }

  // True when what precedes `data` in the source is the start of a line.
  bool after_newline_trim(std::string_view data, std::size_t end) const {
    const std::size_t begin = end - data.size();
    return begin == 0 || source_[begin - 1] == '\n';
  }

  // lstrip_blocks: blanks between the start of the line and a block go.
  static std::string_view StripLineStart(std::string_view data, bool starts_line) {
    const std::size_t newline = data.rfind('\n');
    const std::size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
    if (newline == std::string_view::npos && !starts_line) return data;
    const std::string_view tail = data.substr(line_begin);
    const bool blank = tail.find_first_not_of(kSpaces) == std::string_view::npos;
    return blank ? data.substr(0, line_begin) : data;
  }

  absl::Status Markup() {
    const char kind = source_[at_ + 1];
    at_ += 2;
    if (at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+')) ++at_;
    if (kind == '#') return Comment();
    Emit(kind == '%' ? TokenKind::kBlockBegin : TokenKind::kPrintBegin, "");
    const std::string_view close = kind == '%' ? "%}" : "}}";
    int brackets = 0;
    while (true) {
      SkipSpaces();
      if (at_ >= source_.size()) return Error("a marker that is never closed");
      if (brackets == 0 && AtClose(close)) break;
      MILLRACE_RETURN_IF_ERROR(Next(&brackets));
    }
    strip_next_ = source_[at_] == '-';
    const bool plus = source_[at_] == '+';
    at_ += (strip_next_ || plus ? 1 : 0) + close.size();
    trim_newline_ = kind == '%' && !plus;
    Emit(kind == '%' ? TokenKind::kBlockEnd : TokenKind::kPrintEnd, "");
    return absl::OkStatus();
  }

  bool AtClose(std::string_view close) const {
    const std::string_view rest = std::string_view(source_).substr(at_);
    return rest.starts_with(close) ||
           ((rest.front() == '-' || rest.front() == '+') && rest.substr(1).starts_with(close));
  }

  absl::Status Comment() {
    const std::size_t end = source_.find("#}", at_);
    if (end == std::string::npos) return Error("a comment that is never closed");
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
    strip_next_ = end > at_ && source_[end - 1] == '-';
    trim_newline_ = true;
    at_ = end + 2;
    return absl::OkStatus();
  }

  void SkipSpaces() {
    while (at_ < source_.size() && IsSpace(source_[at_])) {
      if (source_[at_] == '\n') ++line_;
      ++at_;
    }
  }

  absl::Status Next(int* brackets) {
    const char c = source_[at_];
    if (c == '\'' || c == '"') return String(c);
    if (IsDigit(c)) return Number();
    if (IsNameStart(c)) {
      std::size_t end = at_;
      while (end < source_.size() && (IsNameStart(source_[end]) || IsDigit(source_[end]))) ++end;
      Emit(TokenKind::kName, source_.substr(at_, end - at_));
      at_ = end;
      return absl::OkStatus();
    }
    const std::string_view rest = std::string_view(source_).substr(at_);
    for (const std::string_view op : kOperators) {
      if (!rest.starts_with(op)) continue;
      if (op == "(" || op == "[" || op == "{") ++*brackets;
      if (op == ")" || op == "]" || op == "}") *brackets = std::max(0, *brackets - 1);
      Emit(TokenKind::kOperator, std::string(op));
      at_ += op.size();
      return absl::OkStatus();
    }
    return Error(absl::StrCat("a character '", std::string(1, c), "' that means nothing here"));
  }

  absl::Status Number() {
    std::size_t end = at_;
    while (end < source_.size() && (IsDigit(source_[end]) || source_[end] == '_')) ++end;
    TokenKind kind = TokenKind::kInteger;
    if (end + 1 < source_.size() && source_[end] == '.' && IsDigit(source_[end + 1])) {
      kind = TokenKind::kFloat;
      ++end;
      while (end < source_.size() && IsDigit(source_[end])) ++end;
    }
    end = ExponentEnd(end, &kind);
    std::string digits = source_.substr(at_, end - at_);
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    Emit(kind, std::move(digits));
    at_ = end;
    return absl::OkStatus();
  }

  // Past "e10" or "E-3" if the number goes on with one; it is a float then.
  std::size_t ExponentEnd(std::size_t end, TokenKind* kind) const {
    if (end >= source_.size() || (source_[end] != 'e' && source_[end] != 'E')) return end;
    std::size_t digits = end + 1;
    if (digits < source_.size() && (source_[digits] == '+' || source_[digits] == '-')) ++digits;
    std::size_t after = digits;
    while (after < source_.size() && IsDigit(source_[after])) ++after;
    if (after == digits) return end;
    *kind = TokenKind::kFloat;
    return after;
  }

  absl::Status String(char quote) {
    std::string text;
    const int line = line_;
    for (std::size_t i = at_ + 1; i < source_.size(); ++i) {
      const char c = source_[i];
      if (c == quote) {
        tokens_.push_back({TokenKind::kString, std::move(text), line});
        at_ = i + 1;
        return absl::OkStatus();
      }
      if (c == '\n') ++line_;
      if (c != '\\') {
        text.push_back(c);
        continue;
      }
      if (++i >= source_.size()) break;
      MILLRACE_RETURN_IF_ERROR(Escape(&i, &text));
    }
    return Error("a string that is never closed");
  }

  // The escapes of Python strings that templates use; an unknown one stays as it is.
  absl::Status Escape(std::size_t* i, std::string* text) {
    static constexpr std::string_view kLetters = "ntrabfv0\\'\"";
    static constexpr std::string_view kMeaning("\n\t\r\a\b\f\v\0\\'\"", 11);
    const char c = source_[*i];
    const int digits = c == 'x' ? 2 : c == 'u' ? 4 : 0;
    if (digits > 0) {
      std::uint32_t code = 0;
      for (int d = 0; d < digits; ++d) {
        const std::size_t at = ++*i;
        const char h = at < source_.size() ? source_[at] : '?';
        const int value = IsDigit(h)               ? h - '0'
                          : (h >= 'a' && h <= 'f') ? h - 'a' + 10
                          : (h >= 'A' && h <= 'F') ? h - 'A' + 10
                                                   : -1;
        if (value < 0) return Error("a bad escape in a string");
        code = code * 16 + static_cast<std::uint32_t>(value);
      }
      AppendUtf8(code, text);
    } else if (const std::size_t at = kLetters.find(c); at != std::string_view::npos) {
      text->push_back(kMeaning[at]);
    } else if (c != '\n') {
      text->push_back('\\');
      text->push_back(c);
    }
    return absl::OkStatus();
  }

  void Emit(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  absl::Status Error(std::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat("chat template, line ", line_, ": ", std::string(what)));
  }

  const std::string source_;
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool strip_next_ = false;
  bool trim_newline_ = false;
};

// One kind of newline, and no newline at the very end.
std::string Normalise(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out.push_back(source[i]);
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  return Lexer(Normalise(source)).Run();
}

}  // namespace millrace::jinja
