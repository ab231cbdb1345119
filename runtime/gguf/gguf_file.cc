#include "runtime/gguf/gguf_file.h"

#include <cmath>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/gguf/file_source.h"
#include "runtime/gguf/gguf_text.h"
#include "runtime/gguf/header_parser.h"
#include "runtime/gguf/header_reader.h"
#include "runtime/gguf/split_files.h"

namespace millrace {
namespace {

// One file of a model.
struct Part {
  std::string path;
  std::shared_ptr<const ByteSource> bytes;
  GgufHeader header;
};

class ParsedGgufFile final : public GgufFile {
 public:
  // REQUIRES: at least one part, and no tensor in two of them.
  explicit ParsedGgufFile(std::vector<Part> parts) : parts_(std::move(parts)) {
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      paths_.push_back(parts_[p].path);
      file_bytes_ += parts_[p].bytes->size_bytes();
      for (GgufTensor& tensor : parts_[p].header.tensors) {
        tensor.part = static_cast<std::uint32_t>(p);
        tensors_.push_back(std::move(tensor));
      }
    }
    for (std::size_t i = 0; i < metadata().size(); ++i) keys_[metadata()[i].first] = i;
    for (std::size_t i = 0; i < tensors_.size(); ++i) names_[tensors_[i].name] = i;
  }

  const std::string& path() const override { return paths_[0]; }
  std::span<const std::string> paths() const override { return paths_; }
  std::uint32_t version() const override { return parts_[0].header.version; }
  std::uint64_t file_bytes() const override { return file_bytes_; }
  std::span<const std::pair<std::string_view, GgufValue>> metadata() const override {
    return parts_[0].header.metadata;
  }
  const GgufValue* Find(std::string_view key) const override {
    const auto found = keys_.find(key);
    return found == keys_.end() ? nullptr : &metadata()[found->second].second;
  }
  std::span<const GgufTensor> tensors() const override { return tensors_; }
  const GgufTensor* FindTensor(std::string_view name) const override {
    const auto found = names_.find(name);
    return found == names_.end() ? nullptr : &tensors_[found->second];
  }
  std::unique_ptr<ByteSource> Source(const GgufTensor& tensor) const override {
    const Part& part = parts_[tensor.part];
    return std::make_unique<PartOfSource>(part.bytes, part.path + ": tensor " + Quoted(tensor.name),
                                          tensor.offset_bytes, tensor.size_bytes);
  }
  std::shared_ptr<const ByteSource> PartSource(std::size_t part) const override {
    return parts_[part].bytes;
  }

 private:
  std::vector<Part> parts_;  // constant after construction, but for their tensors moved out
  std::vector<std::string> paths_;
  std::vector<GgufTensor> tensors_;
  std::uint64_t file_bytes_ = 0;
  std::unordered_map<std::string_view, std::size_t> keys_;
  std::unordered_map<std::string_view, std::size_t> names_;
};

std::string TypeOf(const GgufArray& array) {
  if (std::holds_alternative<std::vector<double>>(array)) return "an array of floats";
  if (std::holds_alternative<std::vector<bool>>(array)) return "an array of booleans";
  if (std::holds_alternative<std::vector<std::string_view>>(array)) return "an array of strings";
  return "an array of integers";
}

std::string TypeOf(const GgufValue& value) {
  if (const auto* array = std::get_if<GgufArray>(&value)) return TypeOf(*array);
  if (std::holds_alternative<double>(value)) return "a float";
  if (std::holds_alternative<bool>(value)) return "a boolean";
  if (std::holds_alternative<std::string_view>(value)) return "a string";
  return "an integer";
}

absl::StatusOr<const GgufValue*> FindPresent(const GgufFile& file, std::string_view key) {
  const GgufValue* value = file.Find(key);
  if (value == nullptr) return absl::NotFoundError("GGUF: no metadata key " + Quoted(key));
  return value;
}

absl::Status WrongType(std::string_view key, const GgufValue& value, std::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat("GGUF: metadata key ", Quoted(key), " is ",
                                                 TypeOf(value), "; want ", std::string(wanted)));
}

absl::Status OutOfRange(std::string_view key, const std::string& found, const std::string& wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("GGUF: metadata key ", Quoted(key), " is ", found, "; want ", wanted));
}

template <typename T>
absl::StatusOr<T> GetExactly(const GgufFile& file, std::string_view key, std::string_view wanted) {
  MILLRACE_ASSIGN_OR_RETURN(const GgufValue* value, FindPresent(file, key));
  if (const auto* found = std::get_if<T>(value)) return *found;
  return WrongType(key, *value, wanted);
}

template <typename T>
const std::vector<T>* ArrayOf(const GgufValue& value) {
  const auto* array = std::get_if<GgufArray>(&value);
  return array == nullptr ? nullptr : std::get_if<std::vector<T>>(array);
}

absl::StatusOr<Part> ParsePart(std::shared_ptr<const ByteSource> bytes, const std::string& path) {
  absl::StatusOr<GgufHeader> header = ParseGgufHeader(*bytes);
  if (!header.ok()) return WithContext(path, header.status());
  return Part{path, std::move(bytes), *std::move(header)};
}

absl::StatusOr<Part> OpenPart(const std::string& path) {
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<const ByteSource> bytes, OpenFileSource(path));
  return ParsePart(std::move(bytes), path);
}

// A tensor that two parts have, or a number of tensors that the first part denies.
absl::Status CheckParts(const std::vector<Part>& parts) {
  std::unordered_set<std::string_view> names;
  for (const Part& part : parts) {
    for (const GgufTensor& tensor : part.header.tensors) {
      if (names.insert(tensor.name).second) continue;
      return WithContext(part.path, BadGguf("tensor " + Quoted(tensor.name) +
                                            " stands in an earlier part of the model too"));
    }
  }
  const std::optional<std::uint64_t> claimed = parts[0].header.split.tensors;
  if (!claimed || *claimed == names.size()) return absl::OkStatus();
  return WithContext(parts[0].path,
                     BadGguf(absl::StrCat("split.tensors.count is ", *claimed, ", but its ",
                                          parts.size(), " files hold ", names.size(), " tensors")));
}

// Opens the parts behind the first, whose header says how many there are.
absl::Status OpenOtherParts(std::vector<Part>* parts) {
  const GgufSplit split = (*parts)[0].header.split;
  const std::string first = (*parts)[0].path;
  const auto paths = SplitFilePaths(first, split.number, split.count);
  if (!paths.ok()) return WithContext(first, paths.status());
  if (split.number != 0) {
    return WithContext(first, BadGguf(absl::StrCat("part ", split.number + 1, " of a model in ",
                                                   split.count, " files; open ", (*paths)[0])));
  }
  for (std::uint32_t number = 1; number < split.count; ++number) {
    MILLRACE_ASSIGN_OR_RETURN(Part part, OpenPart((*paths)[number]));
    const GgufSplit& found = part.header.split;
    if (found.number != number || found.count != split.count) {
      return WithContext(part.path, BadGguf(absl::StrCat("its keys say part ", found.number + 1,
                                                         " of ", found.count, ", its name part ",
                                                         number + 1, " of ", split.count)));
    }
    parts->push_back(std::move(part));
  }
  return CheckParts(*parts);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const GgufFile>> GgufFile::Open(const std::string& path) {
  std::vector<Part> parts(1);
  MILLRACE_ASSIGN_OR_RETURN(parts[0], OpenPart(path));
  if (parts[0].header.split.count > 1) MILLRACE_RETURN_IF_ERROR(OpenOtherParts(&parts));
  return std::make_shared<const ParsedGgufFile>(std::move(parts));
}

absl::StatusOr<std::shared_ptr<const GgufFile>> GgufFile::FromSource(
    std::shared_ptr<const ByteSource> source, const std::string& name) {
  std::vector<Part> parts(1);
  MILLRACE_ASSIGN_OR_RETURN(parts[0], ParsePart(std::move(source), name));
  const GgufSplit& split = parts[0].header.split;
  if (split.count > 1) {
    return WithContext(name,
                       BadGguf(absl::StrCat("split.count is ", split.count,
                                            "; the other files can only be found by a path")));
  }
  return std::make_shared<const ParsedGgufFile>(std::move(parts));
}

absl::StatusOr<std::int64_t> GgufFile::GetInt(std::string_view key, std::int64_t min,
                                              std::int64_t max) const {
  MILLRACE_ASSIGN_OR_RETURN(const GgufValue* value, FindPresent(*this, key));
  const std::string wanted = absl::StrCat("an integer from ", min, " to ", max);
  if (const auto* number = std::get_if<std::uint64_t>(value)) {
    if (std::cmp_less(*number, min) || std::cmp_greater(*number, max)) {
      return OutOfRange(key, absl::StrCat(*number), wanted);
    }
    return static_cast<std::int64_t>(*number);
  }
  const auto* number = std::get_if<std::int64_t>(value);
  if (number == nullptr) return WrongType(key, *value, wanted);
  if (*number < min || *number > max) return OutOfRange(key, absl::StrCat(*number), wanted);
  return *number;
}

absl::StatusOr<double> GgufFile::GetFloat(std::string_view key) const {
  MILLRACE_ASSIGN_OR_RETURN(const GgufValue* value, FindPresent(*this, key));
  if (const auto* number = std::get_if<std::int64_t>(value)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<std::uint64_t>(value)) return static_cast<double>(*number);
  const auto* number = std::get_if<double>(value);
  if (number == nullptr) return WrongType(key, *value, "a number");
  if (!std::isfinite(*number)) return OutOfRange(key, absl::StrCat(*number), "a finite number");
  return *number;
}

absl::StatusOr<bool> GgufFile::GetBool(std::string_view key) const {
  return GetExactly<bool>(*this, key, "a boolean");
}

absl::StatusOr<std::string_view> GgufFile::GetString(std::string_view key) const {
  return GetExactly<std::string_view>(*this, key, "a string");
}

absl::StatusOr<std::span<const std::string_view>> GgufFile::GetStrings(std::string_view key) const {
  MILLRACE_ASSIGN_OR_RETURN(const GgufValue* value, FindPresent(*this, key));
  const auto* strings = ArrayOf<std::string_view>(*value);
  if (strings == nullptr) return WrongType(key, *value, "an array of strings");
  return std::span<const std::string_view>(*strings);
}

absl::StatusOr<std::vector<std::int64_t>> GgufFile::GetInts(std::string_view key) const {
  MILLRACE_ASSIGN_OR_RETURN(const GgufValue* value, FindPresent(*this, key));
  if (const auto* numbers = ArrayOf<std::int64_t>(*value)) return *numbers;
  const auto* numbers = ArrayOf<std::uint64_t>(*value);
  if (numbers == nullptr) return WrongType(key, *value, "an array of integers");
  std::vector<std::int64_t> out;
  out.reserve(numbers->size());
  for (const std::uint64_t number : *numbers) {
    if (std::cmp_greater(number, INT64_MAX)) {
      return OutOfRange(key, absl::StrCat(number, " in one element"), "less than 2^63");
    }
    out.push_back(static_cast<std::int64_t>(number));
  }
  return out;
}

}  // namespace millrace
