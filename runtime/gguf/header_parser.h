// The header of a GGUF file: magic, version, metadata, tensor table. Everything it claims is
// checked against the limits and the size of the file. Thread-safe (pure function).
#ifndef MILLRACE_RUNTIME_GGUF_HEADER_PARSER_H_
#define MILLRACE_RUNTIME_GGUF_HEADER_PARSER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/byte_source.h"
#include "runtime/gguf/gguf_file.h"

namespace millrace {

using GgufMetadata = std::vector<std::pair<std::string_view, GgufValue>>;

struct GgufHeader {
  std::uint32_t version = 0;
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;
  std::unique_ptr<std::byte[]> bytes;  // what all string views above point into
};

// Reads from the beginning of `file` what belongs to the header, and no tensor. INVALID_ARGUMENT,
// UNIMPLEMENTED (a tensor type, a split file) or the error of `file`.
absl::StatusOr<GgufHeader> ParseGgufHeader(const ByteSource& file);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_GGUF_HEADER_PARSER_H_
