// Reading and repairing UTF-8. Pure functions, thread-safe.
#ifndef MILLRACE_BASE_UTF8_H_
#define MILLRACE_BASE_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace millrace {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

struct Utf8Sequence {
  enum class Kind {
    kValid,       // one code point
    kInvalid,     // a maximal part that no valid sequence starts with, or a lone bad byte
    kUnfinished,  // the text ends inside what may become a code point
  };
  Kind kind;
  std::size_t size;  // in bytes, at least 1
};

// The sequence that starts at text[position]. REQUIRES: position < text.size().
Utf8Sequence ReadUtf8(std::string_view text, std::size_t position);

// The end of the longest prefix of whole code points.
std::size_t ValidUtf8Prefix(std::string_view text);

// `text` with every maximal invalid part replaced by U+FFFD (Unicode 16, section 3.9, the practice
// that Rust's from_utf8_lossy follows).
std::string ReplaceInvalidUtf8(std::string_view text);

// The code point at text[position], and `position` moved behind it.
// REQUIRES: `text` is valid UTF-8 and position < text.size() is the start of a code point.
inline char32_t NextCodePoint(std::string_view text, std::size_t* position) {
  const auto byte = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[i]));
  };
  const std::size_t at = *position;
  const char32_t lead = byte(at);
  if (lead < 0x80) {
    *position = at + 1;
    return lead;
  }
  if (lead < 0xE0) {
    *position = at + 2;
    return (lead & 0x1F) << 6 | (byte(at + 1) & 0x3F);
  }
  if (lead < 0xF0) {
    *position = at + 3;
    return (lead & 0x0F) << 12 | (byte(at + 1) & 0x3F) << 6 | (byte(at + 2) & 0x3F);
  }
  *position = at + 4;
  return (lead & 0x07) << 18 | (byte(at + 1) & 0x3F) << 12 | (byte(at + 2) & 0x3F) << 6 |
         (byte(at + 3) & 0x3F);
}

// REQUIRES: code_point is a scalar value.
void AppendUtf8(char32_t code_point, std::string* text);

}  // namespace millrace

#endif  // MILLRACE_BASE_UTF8_H_
