#include "base/utf8.h"

namespace millrace {
namespace {

struct LeadByte {
  std::size_t size;  // 0: starts nothing
  // Range of the second byte: it excludes overlong forms, surrogates and code points past U+10FFFF.
  unsigned char second_min;
  unsigned char second_max;
};

LeadByte ClassifyLead(unsigned char lead) {
  if (lead < 0x80) return {1, 0, 0};
  if (lead < 0xC2) return {0, 0, 0};
  if (lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead < 0xF0) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead < 0xF4) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Sequence ReadUtf8(std::string_view text, std::size_t position) {
  using Kind = Utf8Sequence::Kind;
  const LeadByte lead = ClassifyLead(static_cast<unsigned char>(text[position]));
  if (lead.size == 0) return {Kind::kInvalid, 1};
  for (std::size_t i = 1; i < lead.size; ++i) {
    if (position + i == text.size()) return {Kind::kUnfinished, i};
    const auto byte = static_cast<unsigned char>(text[position + i]);
    const unsigned char min = i == 1 ? lead.second_min : 0x80;
    const unsigned char max = i == 1 ? lead.second_max : 0xBF;
    if (byte < min || byte > max) return {Kind::kInvalid, i};
  }
  return {Kind::kValid, lead.size};
}

std::size_t ValidUtf8Prefix(std::string_view text) {
  std::size_t position = 0;
  while (position < text.size()) {
    const Utf8Sequence sequence = ReadUtf8(text, position);
    if (sequence.kind != Utf8Sequence::Kind::kValid) break;
    position += sequence.size;
  }
  return position;
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (;;) {
    const std::size_t valid = ValidUtf8Prefix(text);
    result.append(text.substr(0, valid));
    if (valid == text.size()) return result;
    result.append(kReplacementCharacter);
    text.remove_prefix(valid + ReadUtf8(text, valid).size);
  }
}

void AppendUtf8(char32_t code_point, std::string* text) {
  const auto put = [text](char32_t byte) { text->push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

}  // namespace millrace
