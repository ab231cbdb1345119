// The names of the files that a split model is spread over, as llama.cpp's tools and the Python
// package `gguf` write them: NAME-00001-of-00003.gguf. Thread-safe (pure).
#ifndef MILLRACE_RUNTIME_GGUF_SPLIT_FILES_H_
#define MILLRACE_RUNTIME_GGUF_SPLIT_FILES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace millrace {

// The paths of all `count` parts, given that `path` is part `number` (from 0). INVALID_ARGUMENT
// unless `path` ends as that part's name must, with what it should end in.
absl::StatusOr<std::vector<std::string>> SplitFilePaths(const std::string& path,
                                                        std::uint32_t number, std::uint32_t count);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_GGUF_SPLIT_FILES_H_
