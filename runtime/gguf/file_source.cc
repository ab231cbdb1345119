#include "runtime/gguf/file_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace millrace {
namespace {

// The page cache is dropped behind reads of at least this size, piece by piece, so that loading a
// file as large as memory does not push out the weights just laid down. Smaller models stay cached,
// which makes their next start fast.
constexpr std::size_t kDropBehindBytes = std::size_t{8} << 20;

absl::Status ErrnoStatus(const std::string& path, int error) {
  const std::string message = absl::StrCat(path, ": ", std::strerror(error));
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(message);
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(message);
  return absl::InvalidArgumentError(message);
}

class FileSource final : public ByteSource {
 public:
  FileSource(int fd, std::uint64_t size) : fd_(fd), size_(size) {}
  ~FileSource() override { ::close(fd_); }
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;

  std::uint64_t size_bytes() const override { return size_; }

  absl::Status Read(std::uint64_t offset_bytes, std::span<std::byte> out) const override {
    MILLRACE_CHECK(offset_bytes <= size_ && out.size() <= size_ - offset_bytes,
                   "a read stays inside its source");
    const bool drop_behind = out.size() >= kDropBehindBytes;
    while (!out.empty()) {
      const std::size_t size = std::min(out.size(), kDropBehindBytes);
      MILLRACE_RETURN_IF_ERROR(ReadFully(offset_bytes, out.first(size)));
      if (drop_behind) {
        ::posix_fadvise(fd_, static_cast<off_t>(offset_bytes), static_cast<off_t>(size),
                        POSIX_FADV_DONTNEED);
      }
      offset_bytes += size;
      out = out.subspan(size);
    }
    return absl::OkStatus();
  }

 private:
  absl::Status ReadFully(std::uint64_t offset, std::span<std::byte> out) const {
    while (!out.empty()) {
      const ssize_t n = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return absl::DataLossError(absl::StrCat("cannot read: ", std::strerror(errno)));
      if (n == 0) {
        return absl::DataLossError(absl::StrCat(
            "the file of ", size_, " bytes got shorter; it now ends at or before byte ", offset));
      }
      offset += static_cast<std::uint64_t>(n);
      out = out.subspan(static_cast<std::size_t>(n));
    }
    return absl::OkStatus();
  }

  const int fd_;
  const std::uint64_t size_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const ByteSource>> OpenFileSource(const std::string& path) {
  // O_NONBLOCK: opening a pipe must not wait for somebody to write into it.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return ErrnoStatus(path, errno);
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    return absl::InvalidArgumentError(path + ": not a regular file, so not a model file");
  }
  return std::make_shared<const FileSource>(fd, static_cast<std::uint64_t>(info.st_size));
}

PartOfSource::PartOfSource(std::shared_ptr<const ByteSource> whole, std::string what,
                           std::uint64_t begin_bytes, std::uint64_t size_bytes)
    : whole_(std::move(whole)), what_(std::move(what)), begin_(begin_bytes), size_(size_bytes) {
  MILLRACE_CHECK(begin_ <= whole_->size_bytes() && size_ <= whole_->size_bytes() - begin_,
                 "a part lies inside its source");
}

absl::Status PartOfSource::Read(std::uint64_t offset_bytes, std::span<std::byte> out) const {
  MILLRACE_CHECK(offset_bytes <= size_ && out.size() <= size_ - offset_bytes,
                 "a read stays inside its source");
  return WithContext(what_, whole_->Read(begin_ + offset_bytes, out));
}

}  // namespace millrace
