#include "runtime/gguf/split_files.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/gguf/header_reader.h"

namespace millrace {
namespace {

std::string Ending(std::uint32_t number, std::uint32_t count) {
  return absl::StrFormat("-%05d-of-%05d.gguf", number + 1, count);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> SplitFilePaths(const std::string& path,
                                                        std::uint32_t number, std::uint32_t count) {
  const std::string ending = Ending(number, count);
  if (!absl::EndsWith(path, ending)) {
    return BadGguf(absl::StrCat("part ", number + 1, " of a model in ", count,
                                " files; to find the others, its name must end in ", ending));
  }
  const std::string prefix = path.substr(0, path.size() - ending.size());
  std::vector<std::string> paths;
  paths.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) paths.push_back(prefix + Ending(i, count));
  return paths;
}

}  // namespace millrace
