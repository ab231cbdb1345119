// Unicode normal form C, as the Python package `tokenizers` computes it. Linear but for sorting
// long runs of combining marks (n log n). Thread-safe.
#ifndef MILLRACE_RUNTIME_TOKENIZER_NFC_H_
#define MILLRACE_RUNTIME_TOKENIZER_NFC_H_

#include <string>
#include <string_view>

namespace millrace {

// True if `text` is its own NFC for sure; false only asks for NormalizeNfc.
bool IsTriviallyNfc(std::string_view text);

// REQUIRES: `text` is valid UTF-8.
std::string NormalizeNfc(std::string_view text);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_TOKENIZER_NFC_H_
