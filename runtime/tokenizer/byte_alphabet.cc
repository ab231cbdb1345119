#include "runtime/tokenizer/byte_alphabet.h"

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/utf8.h"

namespace millrace {
namespace {

// Printable Latin-1 bytes stand for themselves; the other 68, in order, are U+0100 and on.
constexpr bool StandsForItself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<char32_t, 256> kCharacterOf = [] {
  std::array<char32_t, 256> table{};
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    table[byte] = StandsForItself(byte) ? static_cast<char32_t>(byte) : next++;
  }
  return table;
}();

constexpr std::size_t kAlphabetEnd = 0x100 + 68;

constexpr std::array<std::int16_t, kAlphabetEnd> kByteOf = [] {
  std::array<std::int16_t, kAlphabetEnd> table{};
  table.fill(-1);
  for (unsigned byte = 0; byte < 256; ++byte) {
    table[kCharacterOf[byte]] = static_cast<std::int16_t>(byte);
  }
  return table;
}();

}  // namespace

std::string ToByteAlphabet(std::string_view bytes) {
  std::string token;
  for (const char byte : bytes) {
    AppendUtf8(kCharacterOf[static_cast<unsigned char>(byte)], &token);
  }
  return token;
}

std::string FromByteAlphabet(std::string_view token) {
  std::string bytes;
  std::size_t position = 0;
  while (position < token.size()) {
    if (ReadUtf8(token, position).kind != Utf8Sequence::Kind::kValid) return std::string(token);
    const char32_t character = NextCodePoint(token, &position);
    const int byte = character < kAlphabetEnd ? kByteOf[character] : -1;
    if (byte < 0) return std::string(token);
    bytes.push_back(static_cast<char>(byte));
  }
  return bytes;
}

}  // namespace millrace
