// The table of tensors of a GGUF header. Thread-safe (no state).
#ifndef MILLRACE_RUNTIME_GGUF_TENSOR_TABLE_H_
#define MILLRACE_RUNTIME_GGUF_TENSOR_TABLE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/gguf/gguf_file.h"
#include "runtime/gguf/header_reader.h"

namespace millrace {

absl::Status CheckTensorCount(const HeaderReader& reader, std::uint64_t count);

// Reads `count` entries, the last of the header, and places the tensors behind it. Errors name the
// tensor: UNIMPLEMENTED for a type without kernels, INVALID_ARGUMENT for a name there twice or not
// UTF-8, dimensions that are not 1 to 4 or multiply beyond 2^63, rows of broken blocks, offsets
// that are not aligned, overlap or lie beyond the end of the file.
absl::StatusOr<std::vector<GgufTensor>> ParseTensorTable(HeaderReader* reader, std::uint64_t count,
                                                         std::uint64_t alignment);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_GGUF_TENSOR_TABLE_H_
