#include "runtime/gguf/file_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/memory.h"
#include "base/status.h"

namespace millrace {
namespace {

// Reads below this are headers, which are read again.
constexpr std::size_t kDropBehindBytes = std::size_t{64} << 10;

// The page cache is dropped behind the reads of a file that has no room there beside its weights,
// so that loading it does not push out what else is cached. Smaller models stay cached, which makes
// their next start fast.
bool DropsBehind(std::uint64_t file_bytes) {
  return file_bytes > static_cast<std::uint64_t>(AvailableMemoryBytes()) / 2;
}

absl::Status ErrnoStatus(const std::string& path, int error) {
  const std::string message = absl::StrCat(path, ": ", std::strerror(error));
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(message);
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(message);
  return absl::InvalidArgumentError(message);
}

class FileSource final : public ByteSource {
 public:
  FileSource(int fd, std::uint64_t size) : fd_(fd), size_(size), drops_behind_(DropsBehind(size)) {}
  ~FileSource() override { ::close(fd_); }
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;

  std::uint64_t size_bytes() const override { return size_; }

  absl::Status Read(std::uint64_t offset_bytes, std::span<std::byte> out) const override {
    MILLRACE_CHECK(offset_bytes <= size_ && out.size() <= size_ - offset_bytes,
                   "a read stays inside its source");
    MILLRACE_RETURN_IF_ERROR(ReadFully(offset_bytes, out));
    if (drops_behind_ && out.size() >= kDropBehindBytes) {
      ::posix_fadvise(fd_, static_cast<off_t>(offset_bytes), static_cast<off_t>(out.size()),
                      POSIX_FADV_DONTNEED);
    }
    return absl::OkStatus();
  }

  // Of the open file, not of what its path leads to by now. No program can set the time of change,
  // so a copy that keeps the time of modification is another file.
  std::string Stamp() const override {
    struct stat info {};
    if (::fstat(fd_, &info) != 0) return {};
    return absl::StrCat(info.st_dev, " ", info.st_ino, " ", info.st_size, " ", info.st_mtim.tv_sec,
                        ".", info.st_mtim.tv_nsec, " ", info.st_ctim.tv_sec, ".",
                        info.st_ctim.tv_nsec);
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
  const bool drops_behind_;
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
