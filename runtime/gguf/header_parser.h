// Reads the header of a GGUF file from bytes in memory and checks everything it claims against the
// size of the file. Values and names are views into those bytes. Thread-safe (pure function).
#ifndef MILLRACE_RUNTIME_GGUF_HEADER_PARSER_H_
#define MILLRACE_RUNTIME_GGUF_HEADER_PARSER_H_

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/gguf/gguf_file.h"

namespace millrace {

struct GgufHeader {
  std::uint32_t version = 0;
  std::vector<std::pair<std::string_view, GgufValue>> metadata;
  std::vector<GgufTensor> tensors;
};

// `bytes` is the beginning of the file, at least its whole header; `file_bytes` the size of the
// file.
absl::StatusOr<GgufHeader> ParseGgufHeader(std::string_view bytes, std::uint64_t file_bytes);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_GGUF_HEADER_PARSER_H_
