// What tells one state of a model's files from another without reading the weights: for each file
// its size, its time of modification and SHA-256 of its header (metadata and tensor table).
// Thread-safe.
#ifndef MILLRACE_RUNTIME_RUNNER_MODEL_DIGEST_H_
#define MILLRACE_RUNTIME_RUNNER_MODEL_DIGEST_H_

#include <string>

#include "absl/status/statusor.h"
#include "runtime/gguf/gguf_file.h"

namespace millrace {

// 64 hexadecimal digits. NOT_FOUND if a file is gone, DATA_LOSS if it got shorter.
absl::StatusOr<std::string> ModelDigest(const GgufFile& file);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_RUNNER_MODEL_DIGEST_H_
