// The header of a GGUF file: magic, version, metadata, tensor table. Everything it claims is
// checked against the limits and the size of the file. Thread-safe (pure function).
#ifndef MILLRACE_RUNTIME_GGUF_HEADER_PARSER_H_
#define MILLRACE_RUNTIME_GGUF_HEADER_PARSER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/byte_source.h"
#include "runtime/gguf/gguf_file.h"

namespace millrace {

using GgufMetadata = std::vector<std::pair<std::string_view, GgufValue>>;

// The keys split.no, split.count and split.tensors.count; a file that is not split is part 0 of 1.
struct GgufSplit {
  std::uint32_t number = 0;
  std::uint32_t count = 1;
  std::optional<std::uint64_t> tensors;  // of all parts together, where the file says so
};

struct GgufHeader {
  std::uint32_t version = 0;
  GgufMetadata metadata;
  GgufSplit split;
  std::vector<GgufTensor> tensors;
  std::unique_ptr<std::byte[]> bytes;  // what all string views above point into
};

// Reads from the beginning of `file` what belongs to the header, and no tensor. INVALID_ARGUMENT,
// UNIMPLEMENTED (a tensor type) or the error of `file`.
absl::StatusOr<GgufHeader> ParseGgufHeader(const ByteSource& file);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_GGUF_HEADER_PARSER_H_
