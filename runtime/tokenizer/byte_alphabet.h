// The byte-level alphabet of GPT-2 and its heirs: every byte is written as one printable character,
// so that tokens of any bytes can be stored as text. Pure functions, thread-safe.
#ifndef MILLRACE_RUNTIME_TOKENIZER_BYTE_ALPHABET_H_
#define MILLRACE_RUNTIME_TOKENIZER_BYTE_ALPHABET_H_

#include <string>
#include <string_view>

namespace millrace {

// The characters of `bytes` in the alphabet, as UTF-8.
std::string ToByteAlphabet(std::string_view bytes);

// The bytes that `token` stands for; `token` itself when not all of it is in the alphabet.
std::string FromByteAlphabet(std::string_view token);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_TOKENIZER_BYTE_ALPHABET_H_
