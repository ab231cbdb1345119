// Reads a model's files from their first byte to their last: whether they are what was published
// (SHA-256, as download pages show it) and whether every weight is a finite number. Thread-safe;
// starts threads of its own for the time of a call.
#ifndef MILLRACE_RUNTIME_RUNNER_VERIFY_MODEL_H_
#define MILLRACE_RUNTIME_RUNNER_VERIFY_MODEL_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/gguf/gguf_file.h"

namespace millrace {

struct VerifiedFile {
  std::string path;
  std::uint64_t size_bytes = 0;
  std::string sha256;  // 64 hexadecimal digits
};

struct VerifyReport {
  std::vector<VerifiedFile> files;
  // One line for each tensor that holds a NaN or an infinity, with the first one's place.
  std::vector<std::string> faults;
};

// `threads` >= 1. The error of a read that fails; faults of the content are in the report.
absl::StatusOr<VerifyReport> VerifyModel(
    const GgufFile& file, int threads,
    const std::function<void(std::uint64_t read_bytes, std::uint64_t total_bytes)>& progress);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_RUNNER_VERIFY_MODEL_H_
