#include "base/printable.h"

#include <array>
#include <cstdio>

#include "base/utf8.h"

namespace millrace {
namespace {

constexpr char kNotUtf8[] = "\\ufffd";

// The two ranges of control characters, and DEL between them.
bool IsControl(char32_t c) { return c < 0x20 || (c >= 0x7F && c < 0xA0); }

void AppendEscape(char32_t control, std::string* out) {
  std::array<char, 8> escape{};
  std::snprintf(escape.data(), escape.size(), "\\u%04x", static_cast<unsigned>(control));
  out->append(escape.data());
}

void Append(std::string_view text, bool quotable, std::string* out) {
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Sequence sequence = ReadUtf8(text, at);
    if (sequence.kind != Utf8Sequence::Kind::kValid) {
      out->append(kNotUtf8);
      at += sequence.size;
      continue;
    }
    const std::size_t begin = at;
    const char32_t c = NextCodePoint(text, &at);
    if (IsControl(c)) {
      AppendEscape(c, out);
    } else {
      if (quotable && (c == U'"' || c == U'\\')) out->push_back('\\');
      out->append(text.substr(begin, sequence.size));
    }
  }
}

}  // namespace

void AppendPrintable(std::string_view text, std::string* out) { Append(text, false, out); }

void AppendQuotable(std::string_view text, std::string* out) { Append(text, true, out); }

}  // namespace millrace
