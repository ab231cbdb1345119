#include "runtime/gguf/gguf_file.h"

#include <cmath>
#include <optional>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/gguf/file_source.h"
#include "runtime/gguf/gguf_text.h"
#include "runtime/gguf/header_parser.h"

namespace millrace {
namespace {

class ParsedGgufFile final : public GgufFile {
 public:
  ParsedGgufFile(std::string path, std::shared_ptr<const ByteSource> file, GgufHeader header)
      : path_(std::move(path)), file_(std::move(file)), header_(std::move(header)) {
    for (std::size_t i = 0; i < header_.metadata.size(); ++i) keys_[header_.metadata[i].first] = i;
    for (std::size_t i = 0; i < header_.tensors.size(); ++i) names_[header_.tensors[i].name] = i;
  }

  const std::string& path() const override { return path_; }
  std::uint32_t version() const override { return header_.version; }
  std::uint64_t file_bytes() const override { return file_->size_bytes(); }
  std::span<const std::pair<std::string_view, GgufValue>> metadata() const override {
    return header_.metadata;
  }
  const GgufValue* Find(std::string_view key) const override {
    const auto found = keys_.find(key);
    return found == keys_.end() ? nullptr : &header_.metadata[found->second].second;
  }
  std::span<const GgufTensor> tensors() const override { return header_.tensors; }
  const GgufTensor* FindTensor(std::string_view name) const override {
    const auto found = names_.find(name);
    return found == names_.end() ? nullptr : &header_.tensors[found->second];
  }
  std::unique_ptr<ByteSource> Source(const GgufTensor& tensor) const override {
    return std::make_unique<PartOfSource>(file_, path_ + ": tensor " + Quoted(tensor.name),
                                          tensor.offset_bytes, tensor.size_bytes);
  }

 private:
  const std::string path_;
  const std::shared_ptr<const ByteSource> file_;
  const GgufHeader header_;
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

absl::StatusOr<std::shared_ptr<const GgufFile>> Parse(std::shared_ptr<const ByteSource> source,
                                                      const std::string& name) {
  absl::StatusOr<GgufHeader> header = ParseGgufHeader(*source);
  if (!header.ok()) {
    return absl::Status(header.status().code(),
                        absl::StrCat(name, ": ", header.status().message()));
  }
  return std::make_shared<const ParsedGgufFile>(name, std::move(source), *std::move(header));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const GgufFile>> GgufFile::Open(const std::string& path) {
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<const ByteSource> source, OpenFileSource(path));
  return Parse(std::move(source), path);
}

absl::StatusOr<std::shared_ptr<const GgufFile>> GgufFile::FromSource(
    std::shared_ptr<const ByteSource> source, const std::string& name) {
  return Parse(std::move(source), name);
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
