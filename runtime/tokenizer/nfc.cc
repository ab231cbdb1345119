#include "runtime/tokenizer/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "base/check.h"
#include "base/utf8.h"
#include "runtime/tokenizer/unicode_tables.h"

namespace millrace {
namespace {

constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

void AppendDecomposed(char32_t code_point, std::vector<utf8proc_int32_t>* out) {
  // No code point has a canonical decomposition longer than 4.
  std::array<utf8proc_int32_t, 8> parts;
  int last_boundary = 0;
  const utf8proc_ssize_t count = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(code_point), parts.data(),
      static_cast<utf8proc_ssize_t>(parts.size()), kOptions, &last_boundary);
  MILLRACE_CHECK(count >= 0 && static_cast<std::size_t>(count) <= parts.size(),
                 "a scalar value decomposes into a few others");
  out->insert(out->end(), parts.begin(), parts.begin() + count);
}

int CombiningClass(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

// Sorts every run of combining marks by class. utf8proc would do it too, by exchanging neighbours:
// quadratic, and a run is as long as a client makes it.
void SortMarks(std::vector<utf8proc_int32_t>* code_points) {
  const auto is_mark = [](utf8proc_int32_t c) { return CombiningClass(c) != 0; };
  const auto before = [](utf8proc_int32_t a, utf8proc_int32_t b) {
    return CombiningClass(a) < CombiningClass(b);
  };
  auto begin = code_points->begin();
  for (;;) {
    begin = std::find_if(begin, code_points->end(), is_mark);
    if (begin == code_points->end()) return;
    const auto end = std::find_if_not(begin, code_points->end(), is_mark);
    if (!std::is_sorted(begin, end, before)) std::stable_sort(begin, end, before);
    begin = end;
  }
}

// Composes the decomposed `code_points`, appends them to `out` and empties them.
void Flush(std::vector<utf8proc_int32_t>* code_points, std::string* out) {
  SortMarks(code_points);
  const utf8proc_ssize_t count = utf8proc_normalize_utf32(
      code_points->data(), static_cast<utf8proc_ssize_t>(code_points->size()), kOptions);
  MILLRACE_CHECK(count >= 0, "composing scalar values cannot fail");
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    AppendUtf8(static_cast<char32_t>((*code_points)[static_cast<std::size_t>(i)]), out);
  }
  code_points->clear();
}

}  // namespace

bool IsTriviallyNfc(std::string_view text) {
  // Nothing below U+0300, whose lead byte is 0xCC, decomposes under NFC or combines.
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) >= 0xCC; });
}

std::string NormalizeNfc(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  std::vector<utf8proc_int32_t> code_points;
  for (std::size_t position = 0; position < text.size();) {
    const char32_t code_point = NextCodePoint(text, &position);
    if (IsNfcInert(code_point)) {
      Flush(&code_points, &out);
      AppendUtf8(code_point, &out);
    } else {
      AppendDecomposed(code_point, &code_points);
    }
  }
  Flush(&code_points, &out);
  return out;
}

}  // namespace millrace
