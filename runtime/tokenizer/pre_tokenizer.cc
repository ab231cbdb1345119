#include "runtime/tokenizer/pre_tokenizer.h"

#include <array>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/utf8.h"
#include "runtime/tokenizer/unicode_tables.h"

namespace millrace {
namespace {

bool IsNewline(char32_t c) { return c == '\r' || c == '\n'; }

// One code point of the text and where the next one starts.
struct Char {
  char32_t code_point = 0;
  CharClass char_class = CharClass::kOther;
  std::size_t end = 0;
  bool exists = false;  // false at the end of the text, where no class matches
};

Char CharAt(std::string_view text, std::size_t position) {
  if (position >= text.size()) return {};
  Char c;
  c.exists = true;
  c.end = position;
  c.code_point = NextCodePoint(text, &c.end);
  c.char_class = ClassOf(c.code_point);
  return c;
}

// The end of the characters from `begin` that are `wanted`.
template <typename Predicate>
std::size_t SkipWhile(std::string_view text, std::size_t begin, Predicate wanted) {
  for (;;) {
    const Char c = CharAt(text, begin);
    if (!c.exists || !wanted(c)) return begin;
    begin = c.end;
  }
}

// What differs between the families.
struct Qwen2 {
  static constexpr bool kFoldContractions = true;   // (?i:'s|...)
  static constexpr bool kAnyCharLeadsWord = true;   // [^\r\n\p{L}\p{N}]?\p{L}+, else ?\p{L}+
  static constexpr bool kNewlinesEndWords = true;   // [\r\n]* after other characters, \s*[\r\n]+
  static constexpr bool kNumberEndsSpaces = false;  // spaces stop as if the text ended there
  static constexpr bool kSpaceLeadsNumber = false;  // ?\p{N}+
  static constexpr std::size_t kMaxNumbers = 1;     // characters of \p{N} in a word
  static bool IsLetter(const Char& c) { return c.char_class == CharClass::kLetter; }
  static bool IsNumber(const Char& c) { return c.char_class == CharClass::kNumber; }
  static bool IsSpace(const Char& c) { return c.char_class == CharClass::kSpace; }
  static bool IsOther(const Char& c) { return !IsLetter(c) && !IsNumber(c) && !IsSpace(c); }
};

struct SmolLm : Qwen2 {
  static constexpr bool kFoldContractions = false;
  static constexpr bool kAnyCharLeadsWord = false;
  static constexpr bool kNewlinesEndWords = false;
  static constexpr bool kNumberEndsSpaces = true;
  static bool IsNumber(const Char& c) {
    return c.char_class == CharClass::kNumber || c.char_class == CharClass::kDigitOnly;
  }
  static bool IsOther(const Char& c) { return !IsLetter(c) && !IsNumber(c) && !IsSpace(c); }
};

struct LlamaBpe : Qwen2 {
  static constexpr std::size_t kMaxNumbers = 3;
};

struct Gpt2 : Qwen2 {
  static constexpr bool kFoldContractions = false;
  static constexpr bool kAnyCharLeadsWord = false;
  static constexpr bool kNewlinesEndWords = false;
  static constexpr bool kSpaceLeadsNumber = true;
  static constexpr std::size_t kMaxNumbers = SIZE_MAX;
};

char32_t FoldForContraction(char32_t c, bool fold) {
  if (!fold) return c;
  if (c == 0x17F) return 's';  // the long s; no other letter of a contraction has a third form
  return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

// The end of a contraction at `begin`, where an apostrophe stands; `begin` if there is none.
template <typename Family>
std::size_t ContractionEnd(std::string_view text, std::size_t begin) {
  const Char first = CharAt(text, begin + 1);
  if (!first.exists) return begin;
  const char32_t a = FoldForContraction(first.code_point, Family::kFoldContractions);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return first.end;
  if (a != 'r' && a != 'v' && a != 'l') return begin;
  const Char second = CharAt(text, first.end);
  if (!second.exists) return begin;
  const char32_t b = FoldForContraction(second.code_point, Family::kFoldContractions);
  return b == (a == 'l' ? U'l' : U'e') ? second.end : begin;
}

// The end of the word of white space that starts at `begin`. The character behind the word is only
// left out when it can lead the next word, so a run is read at most three times.
template <typename Family>
std::size_t SpacesEnd(std::string_view text, std::size_t begin) {
  std::size_t last = begin;            // start of the run's last character
  std::size_t behind_newline = begin;  // behind the run's last newline
  std::size_t end = begin;
  Char c = CharAt(text, begin);
  while (c.exists && Family::IsSpace(c)) {
    last = end;
    end = c.end;
    if (IsNewline(c.code_point)) behind_newline = end;
    c = CharAt(text, end);
  }
  if (Family::kNewlinesEndWords && behind_newline > begin) return behind_newline;
  if (!c.exists || (Family::kNumberEndsSpaces && Family::IsNumber(c))) return end;
  return last > begin ? last : end;
}

template <typename Family>
std::size_t OthersEnd(std::string_view text, std::size_t begin) {
  const std::size_t end = SkipWhile(text, begin, Family::IsOther);
  if (!Family::kNewlinesEndWords) return end;
  return SkipWhile(text, end, [](const Char& c) { return IsNewline(c.code_point); });
}

// The end of the number at `begin`.
template <typename Family>
std::size_t NumbersEnd(std::string_view text, std::size_t begin) {
  std::size_t end = begin;
  for (std::size_t count = 0; count < Family::kMaxNumbers; ++count) {
    const Char c = CharAt(text, end);
    if (!c.exists || !Family::IsNumber(c)) break;
    end = c.end;
  }
  return end;
}

template <typename Family>
std::size_t FamilyWordEnd(std::string_view text, std::size_t begin) {
  const Char first = CharAt(text, begin);
  if (Family::IsLetter(first)) return SkipWhile(text, first.end, Family::IsLetter);
  if (Family::IsNumber(first)) return NumbersEnd<Family>(text, begin);
  if (first.code_point == '\'') {
    const std::size_t end = ContractionEnd<Family>(text, begin);
    if (end > begin) return end;
  }
  const Char second = CharAt(text, first.end);
  const bool may_lead =
      first.code_point == ' ' || (Family::kAnyCharLeadsWord && !IsNewline(first.code_point));
  if (may_lead && second.exists && Family::IsLetter(second)) {
    return SkipWhile(text, second.end, Family::IsLetter);
  }
  if (Family::kSpaceLeadsNumber && first.code_point == ' ' && second.exists &&
      Family::IsNumber(second)) {
    return NumbersEnd<Family>(text, first.end);
  }
  if (Family::IsOther(first)) return OthersEnd<Family>(text, begin);
  if (first.code_point == ' ' && second.exists && Family::IsOther(second)) {
    return OthersEnd<Family>(text, first.end);
  }
  return SpacesEnd<Family>(text, begin);
}

// llama.cpp's conversion has written Llama 3's under three names.
constexpr PreTokenizerTraits kFamilies[] = {
    {"qwen2", PreTokenizer::kQwen2, true, false, false},
    {"smollm", PreTokenizer::kSmolLm, false, false, false},
    {"llama-bpe", PreTokenizer::kLlamaBpe, false, true, true},
    {"llama3", PreTokenizer::kLlamaBpe, false, true, true},
    {"llama-v3", PreTokenizer::kLlamaBpe, false, true, true},
    {"gpt-2", PreTokenizer::kGpt2, false, false, false},
};

}  // namespace

absl::StatusOr<PreTokenizerTraits> FindPreTokenizer(std::string_view name) {
  for (const PreTokenizerTraits& family : kFamilies) {
    if (family.name == name) return family;
  }
  const std::string shown(name.substr(0, 64));
  return absl::UnimplementedError(absl::StrCat("tokenizer.ggml.pre is '", absl::CHexEscape(shown),
                                               "'; supported are ", kPreTokenizerNames));
}

std::size_t WordEnd(PreTokenizer kind, std::string_view text, std::size_t begin) {
  switch (kind) {
    case PreTokenizer::kQwen2:
      return FamilyWordEnd<Qwen2>(text, begin);
    case PreTokenizer::kSmolLm:
      return FamilyWordEnd<SmolLm>(text, begin);
    case PreTokenizer::kLlamaBpe:
      return FamilyWordEnd<LlamaBpe>(text, begin);
    case PreTokenizer::kGpt2:
      return FamilyWordEnd<Gpt2>(text, begin);
  }
  return text.size();
}

}  // namespace millrace
