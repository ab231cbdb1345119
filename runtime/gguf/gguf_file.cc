#include "runtime/gguf/gguf_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/gguf/header_parser.h"

namespace millrace {
namespace {

// The page cache is dropped behind reads of this size and more, so that loading a file as large as
// memory does not push the weights out again; smaller files stay cached for the next start.
constexpr std::uint64_t kDropCacheBytes = std::uint64_t{8} << 20;

// An open file and a private mapping of it; only header pages are ever touched.
class MappedFile {
 public:
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ErrnoStatus(path, errno);
    struct stat info {};
    if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
      ::close(fd);
      return absl::InvalidArgumentError(path + ": not a regular file, so not a GGUF file");
    }
    const auto size = static_cast<std::uint64_t>(info.st_size);
    void* data =
        size == 0 ? nullptr : ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    if (data == MAP_FAILED) {
      const absl::Status status = ErrnoStatus(path, errno);
      ::close(fd);
      return status;
    }
    return std::shared_ptr<const MappedFile>(
        new MappedFile(fd, static_cast<const char*>(data), size));
  }

  ~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<char*>(data_), size_);
    ::close(fd_);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  int fd() const { return fd_; }
  std::string_view bytes() const { return {data_, size_}; }

 private:
  MappedFile(int fd, const char* data, std::uint64_t size) : fd_(fd), data_(data), size_(size) {}

  static absl::Status ErrnoStatus(const std::string& path, int error) {
    const std::string message = absl::StrCat(path, ": ", std::strerror(error));
    if (error == ENOENT) return absl::NotFoundError(message);
    if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(message);
    return absl::InvalidArgumentError(message);
  }

  const int fd_;
  const char* const data_;
  const std::uint64_t size_;
};

class TensorSource final : public ByteSource {
 public:
  TensorSource(std::shared_ptr<const MappedFile> file, const GgufTensor& tensor)
      : file_(std::move(file)),
        name_(tensor.name),
        begin_(tensor.offset_bytes),
        size_(tensor.size_bytes) {}

  std::uint64_t size_bytes() const override { return size_; }

  absl::Status Read(std::uint64_t offset_bytes, std::span<std::byte> out) const override {
    std::uint64_t done = 0;
    while (done < out.size()) {
      const ssize_t n = ::pread(file_->fd(), out.data() + done, out.size() - done,
                                static_cast<off_t>(begin_ + offset_bytes + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0)
        return absl::DataLossError(absl::StrCat("tensor '", name_, "': ", std::strerror(errno)));
      if (n == 0)
        return absl::DataLossError(
            absl::StrCat("tensor '", name_, "': the file got shorter while it was read"));
      done += static_cast<std::uint64_t>(n);
    }
    if (out.size() >= kDropCacheBytes) {
      ::posix_fadvise(file_->fd(), static_cast<off_t>(begin_ + offset_bytes),
                      static_cast<off_t>(out.size()), POSIX_FADV_DONTNEED);
    }
    return absl::OkStatus();
  }

 private:
  const std::shared_ptr<const MappedFile> file_;
  const std::string name_;
  const std::uint64_t begin_;
  const std::uint64_t size_;
};

class MappedGgufFile final : public GgufFile {
 public:
  MappedGgufFile(std::string path, std::shared_ptr<const MappedFile> file, GgufHeader header)
      : path_(std::move(path)), file_(std::move(file)), header_(std::move(header)) {
    for (std::size_t i = 0; i < header_.metadata.size(); ++i) keys_[header_.metadata[i].first] = i;
    for (std::size_t i = 0; i < header_.tensors.size(); ++i) names_[header_.tensors[i].name] = i;
  }

  const std::string& path() const override { return path_; }
  std::uint32_t version() const override { return header_.version; }
  std::uint64_t file_bytes() const override { return file_->bytes().size(); }
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
    return std::make_unique<TensorSource>(file_, tensor);
  }

 private:
  const std::string path_;
  const std::shared_ptr<const MappedFile> file_;
  const GgufHeader header_;
  std::unordered_map<std::string_view, std::size_t> keys_;
  std::unordered_map<std::string_view, std::size_t> names_;
};

absl::Status Absent(std::string_view key) {
  return absl::NotFoundError(
      absl::StrCat("GGUF: metadata key '", std::string(key), "' is missing"));
}

absl::Status WrongType(std::string_view key, std::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("GGUF: metadata key '", std::string(key), "' is not ", std::string(wanted)));
}

std::optional<std::int64_t> AsInt(const GgufValue& value) {
  if (const auto* i = std::get_if<std::int64_t>(&value)) return *i;
  const auto* u = std::get_if<std::uint64_t>(&value);
  // What does not fit saturates: every caller has a smaller maximum, and the message shows that
  // one.
  if (u != nullptr) return static_cast<std::int64_t>(std::min<std::uint64_t>(*u, INT64_MAX));
  return std::nullopt;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const GgufFile>> GgufFile::Open(const std::string& path) {
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  absl::StatusOr<GgufHeader> header = ParseGgufHeader(file->bytes(), file->bytes().size());
  if (!header.ok()) {
    return absl::Status(header.status().code(),
                        absl::StrCat(path, ": ", std::string(header.status().message())));
  }
  return std::make_shared<const MappedGgufFile>(path, std::move(file), std::move(*header));
}

absl::StatusOr<std::int64_t> GgufFile::GetInt(std::string_view key, std::int64_t min,
                                              std::int64_t max) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  const auto number = AsInt(*value);
  if (!number) return WrongType(key, "an integer");
  if (*number < min || *number > max) {
    return absl::InvalidArgumentError(absl::StrCat("GGUF: metadata key '", std::string(key),
                                                   "' is ", *number, "; want ", min, " to ", max));
  }
  return *number;
}

absl::StatusOr<double> GgufFile::GetFloat(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  const auto* number = std::get_if<double>(value);
  const auto integer = AsInt(*value);
  if (number == nullptr && !integer) return WrongType(key, "a number");
  const double out = number != nullptr ? *number : static_cast<double>(*integer);
  if (!std::isfinite(out)) return WrongType(key, "a finite number");
  return out;
}

absl::StatusOr<bool> GgufFile::GetBool(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  const auto* boolean = std::get_if<bool>(value);
  if (boolean == nullptr) return WrongType(key, "a boolean");
  return *boolean;
}

absl::StatusOr<std::string_view> GgufFile::GetString(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  const auto* text = std::get_if<std::string_view>(value);
  if (text == nullptr) return WrongType(key, "a string");
  return *text;
}

absl::StatusOr<std::span<const std::string_view>> GgufFile::GetStrings(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  const auto* array = std::get_if<GgufArray>(value);
  const auto* strings =
      array == nullptr ? nullptr : std::get_if<std::vector<std::string_view>>(array);
  if (strings == nullptr) return WrongType(key, "an array of strings");
  return std::span<const std::string_view>(*strings);
}

absl::StatusOr<std::vector<std::int64_t>> GgufFile::GetInts(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  const auto* array = std::get_if<GgufArray>(value);
  if (array != nullptr) {
    if (const auto* numbers = std::get_if<std::vector<std::int64_t>>(array)) return *numbers;
    if (const auto* numbers = std::get_if<std::vector<std::uint64_t>>(array)) {
      std::vector<std::int64_t> out;
      for (const std::uint64_t n : *numbers) {
        out.push_back(static_cast<std::int64_t>(std::min<std::uint64_t>(n, INT64_MAX)));
      }
      return out;
    }
  }
  return WrongType(key, "an array of integers");
}

}  // namespace millrace
