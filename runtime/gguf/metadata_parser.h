// The keys of a GGUF header and their values. Thread-safe (no state).
#ifndef MILLRACE_RUNTIME_GGUF_METADATA_PARSER_H_
#define MILLRACE_RUNTIME_GGUF_METADATA_PARSER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/gguf/header_parser.h"
#include "runtime/gguf/header_reader.h"

namespace millrace {

absl::Status CheckKeyCount(const HeaderReader& reader, std::uint64_t count);

// Reads `count` keys. INVALID_ARGUMENT naming the key: not UTF-8, there twice, of no known type, an
// array of arrays, beyond a limit or beyond the end of the file.
absl::StatusOr<GgufMetadata> ParseMetadata(HeaderReader* reader, std::uint64_t count);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_GGUF_METADATA_PARSER_H_
