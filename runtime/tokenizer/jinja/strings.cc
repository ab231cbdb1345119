#include "runtime/tokenizer/jinja/strings.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "runtime/tokenizer/jinja/builtins_support.h"

namespace millrace::jinja {
namespace {

// Python's str.strip() takes Unicode white space too; chat text meets these.
constexpr std::string_view kAsciiSpaces = " \t\n\r\v\f\x1c\x1d\x1e\x1f";
constexpr std::array<std::string_view, 19> kWideSpaces = {
    "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
    "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86",
    "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
    "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};

// Bytes of white space at the front or the back of `text`; 0 if there is none.
std::size_t SpaceAtFront(std::string_view text, const std::string* characters) {
  if (text.empty()) return 0;
  if (characters != nullptr) {
    const std::size_t length = CodePointOffset(text, 1);
    for (std::size_t i = 0; i < characters->size();) {
      const std::size_t n = CodePointOffset(std::string_view(*characters).substr(i), 1);
      if (text.substr(0, length) == std::string_view(*characters).substr(i, n)) return length;
      i += n;
    }
    return 0;
  }
  if (kAsciiSpaces.find(text.front()) != std::string_view::npos) return 1;
  for (const std::string_view space : kWideSpaces) {
    if (text.starts_with(space)) return space.size();
  }
  return 0;
}

std::size_t SpaceAtBack(std::string_view text, const std::string* characters) {
  std::size_t begin = text.size();
  while (begin > 0) {
    --begin;
    if ((static_cast<unsigned char>(text[begin]) & 0xC0) != 0x80) break;
  }
  return SpaceAtFront(text.substr(begin), characters) == text.size() - begin ? text.size() - begin
                                                                             : 0;
}

char LowerAscii(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
char UpperAscii(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }
bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace

Text Strip(const Text& text, const std::string* characters, bool front, bool back) {
  std::string_view rest = text.bytes();
  std::size_t begin = 0;
  while (front) {
    const std::size_t n = SpaceAtFront(rest, characters);
    if (n == 0) break;
    begin += n;
    rest.remove_prefix(n);
  }
  while (back) {
    const std::size_t n = rest.empty() ? 0 : SpaceAtBack(rest, characters);
    if (n == 0) break;
    rest.remove_suffix(n);
  }
  return text.Slice(begin, rest.size());
}

absl::StatusOr<Value> ChangeCase(std::string_view name, const Text& text) {
  if (!IsAscii(text.bytes())) {
    return absl::UnimplementedError(
        absl::StrCat(std::string(name), " of text beyond ASCII is not supported"));
  }
  if (name == "lower") return Value::OfText(text.MapBytes(LowerAscii));
  if (name == "upper") return Value::OfText(text.MapBytes(UpperAscii));
  bool start = true;
  const bool title = name == "title";
  return Value::OfText(text.MapBytes([&start, title](char c) {
    const bool letter = UpperAscii(c) != LowerAscii(c);
    const char out = letter && start ? UpperAscii(c) : LowerAscii(c);
    start = title ? !letter : false;
    return out;
  }));
}

List SplitSpaces(const Text& text, std::int64_t max_splits) {
  const std::string_view bytes = text.bytes();
  const auto skip = [bytes](std::size_t at, bool spaces) {
    while (at < bytes.size()) {
      const std::size_t n = SpaceAtFront(bytes.substr(at), nullptr);
      if ((n > 0) != spaces) break;
      at += std::max<std::size_t>(n, 1);
    }
    return at;
  };
  List out;
  for (std::size_t begin = skip(0, true); begin < bytes.size();) {
    if (max_splits >= 0 && static_cast<std::int64_t>(out.size()) == max_splits) {
      out.push_back(Value::OfText(Strip(text.Slice(begin), nullptr, false, true)));
      break;
    }
    const std::size_t end = skip(begin, false);
    out.push_back(Value::OfText(text.Slice(begin, end - begin)));
    begin = skip(end, true);
  }
  return out;
}

List SplitOn(const Text& text, std::string_view separator, std::int64_t max_splits) {
  List out;
  std::size_t begin = 0;
  while (max_splits < 0 || static_cast<std::int64_t>(out.size()) < max_splits) {
    const std::size_t at = text.bytes().find(separator, begin);
    if (at == std::string::npos) break;
    out.push_back(Value::OfText(text.Slice(begin, at - begin)));
    begin = at + separator.size();
  }
  out.push_back(Value::OfText(text.Slice(begin)));
  return out;
}

absl::StatusOr<Text> Replace(const Text& text, const Text& from, const Text& to,
                             std::int64_t count) {
  if (from.empty()) return Wrong("replace", "of an empty string is not supported");
  Text out;
  std::size_t begin = 0;
  for (std::int64_t done = 0; count < 0 || done < count; ++done) {
    const std::size_t at = text.bytes().find(from.bytes(), begin);
    if (at == std::string::npos) break;
    out.Append(text.Slice(begin, at - begin));
    out.Append(to);
    begin = at + from.size();
  }
  out.Append(text.Slice(begin));
  return out;
}

absl::StatusOr<Value> Join(const List& items, const Text& separator) {
  Text out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.Append(separator);
    out.Append(ToText(items[i]));
  }
  return Value::OfText(std::move(out));
}

}  // namespace millrace::jinja
