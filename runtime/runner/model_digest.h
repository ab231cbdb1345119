// What tells one state of a model's files from another without reading the weights: for each file
// which one it is, its size, its times of modification and change, and its header (metadata and
// tensor table), all in one SHA-256. Thread-safe.
#ifndef MILLRACE_RUNTIME_RUNNER_MODEL_DIGEST_H_
#define MILLRACE_RUNTIME_RUNNER_MODEL_DIGEST_H_

#include <string>

#include "absl/status/statusor.h"
#include "runtime/gguf/gguf_file.h"

namespace millrace {

// 64 hexadecimal digits, of the files as they are now. DATA_LOSS if one got shorter.
absl::StatusOr<std::string> ModelDigest(const GgufFile& file);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_RUNNER_MODEL_DIGEST_H_
