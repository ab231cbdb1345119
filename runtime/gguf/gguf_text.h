// Words for the errors of the GGUF reader, and the check of names. Thread-safe (pure functions).
#ifndef MILLRACE_RUNTIME_GGUF_GGUF_TEXT_H_
#define MILLRACE_RUNTIME_GGUF_GGUF_TEXT_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace millrace {

// `text` between single quotes, escaped to printable ASCII and cut to a length that fits a line.
std::string Quoted(std::string_view text);

// True for UTF-8 without overlong forms, surrogates or control characters: what a key or a tensor
// may be called.
bool IsPrintableUtf8(std::string_view text);

// The name of a ggml tensor type, supported or not: "Q2_K"; "unknown" past the end of the list.
std::string_view GgmlTypeName(std::uint32_t ggml_type);

// "F32, F16, ..." of kernels/dtype.h.
std::string SupportedTypes();

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_GGUF_GGUF_TEXT_H_
