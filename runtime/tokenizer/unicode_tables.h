// Classes of code points as the Python package `tokenizers` sees them; the tables are generated
// (tools/generate_unicode_tables.py). Pure functions, thread-safe.
#ifndef MILLRACE_RUNTIME_TOKENIZER_UNICODE_TABLES_H_
#define MILLRACE_RUNTIME_TOKENIZER_UNICODE_TABLES_H_

#include <cstdint>

namespace millrace {

enum class CharClass : std::uint8_t {
  kOther = 0,
  kLetter = 1,     // \p{L}
  kNumber = 2,     // \p{N}
  kSpace = 3,      // \s
  kDigitOnly = 4,  // a digit for splitting digits, not yet \p{N} in the regular expressions
};

namespace internal {

// Blocks of 256 code points, 4 bits each (low half first): bits 0-2 CharClass, bit 3 NFC-inert.
extern const std::uint8_t kUnicodeBlockOf[0x1100];
extern const std::uint8_t kUnicodeBlocks[][128];

// REQUIRES: code_point <= U+10FFFF.
inline unsigned UnicodeBits(char32_t code_point) {
  const std::uint8_t pair =
      kUnicodeBlocks[kUnicodeBlockOf[code_point >> 8]][(code_point & 0xFF) >> 1];
  return (code_point & 1) != 0 ? pair >> 4 : pair & 0xF;
}

}  // namespace internal

inline CharClass ClassOf(char32_t code_point) {
  return static_cast<CharClass>(internal::UnicodeBits(code_point) & 7);
}

// True for a code point newer than the NFC of `tokenizers`, which leaves it where it is: it neither
// moves nor composes, and nothing moves or composes across it.
inline bool IsNfcInert(char32_t code_point) { return (internal::UnicodeBits(code_point) & 8) != 0; }

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_TOKENIZER_UNICODE_TABLES_H_
