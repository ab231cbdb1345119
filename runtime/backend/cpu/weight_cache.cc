#include "runtime/backend/cpu/weight_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "kernels/tile_layout.h"

namespace millrace::cpu {
namespace {

constexpr std::int64_t kPage = 4096;
constexpr mode_t kMode = 0644;  // less what the process's mask takes; a folder is often shared

std::string Title(const WeightCacheOptions& options, Isa isa) {
  return absl::StrCat("millrace weights\nlayout ", kTileLayoutVersion, "\nlevel ",
                      std::string(IsaName(isa)), "\nmodel ", options.model, "\n");
}

// Models that share a folder are told apart by the first digits; the title has them all.
std::string Path(const WeightCacheOptions& options, Isa isa) {
  return (std::filesystem::path(options.directory) / absl::StrCat(options.model.substr(0, 16), "-",
                                                                  std::string(IsaName(isa)), "-",
                                                                  kTileLayoutVersion, ".weights"))
      .string();
}

bool SameFile(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

}  // namespace

WeightCache::WeightCache(const WeightCacheOptions& options, Isa isa)
    : title_(Title(options, isa)), path_(Path(options, isa)), cursor_(kPage) {
  MILLRACE_CHECK(title_.size() < kPage, "the title fits its page");
  mapped_ = OpenExisting();
  if (!mapped_) BeginNew();
}

WeightCache::~WeightCache() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

bool WeightCache::OpenExisting() {
  // O_NONBLOCK: a pipe in its place must not wait for somebody to write into it.
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) return false;
  struct stat status {};
  if (::fstat(fd_, &status) == 0 && S_ISREG(status.st_mode) && HasText(title_, 0)) return true;
  ::close(fd_);
  fd_ = -1;
  return false;
}

void WeightCache::BeginNew() {
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  fd_ = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, kMode);
  if (fd_ < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
    temporary_ = path_ + ".XXXXXX";
    fd_ = ::mkstemp(temporary_.data());
    if (fd_ < 0) temporary_.clear();
  }
  if (fd_ < 0) return GiveUp("cannot be made", errno);
  if (!WriteText(title_, 0)) GiveUp("cannot be written", errno);
}

void WeightCache::GiveUp(std::string_view what, int error) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  // What was written is of no use, and may have filled the disk.
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
  Log(LogLevel::kWarning, "the weight cache is not used",
      {{"file", path_},
       {"why", error == 0 ? std::string(what)
                          : absl::StrCat(std::string(what), ": ", std::strerror(error))}});
}

bool WeightCache::Write(std::span<const std::byte> bytes, std::int64_t offset) const {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    offset += n;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

bool WeightCache::WriteText(std::string_view text, std::int64_t offset) const {
  return Write(std::as_bytes(std::span(text)), offset);
}

bool WeightCache::HasText(std::string_view text, std::int64_t offset) const {
  std::string found(text.size(), '\0');
  const ssize_t n = ::pread(fd_, found.data(), found.size(), static_cast<off_t>(offset));
  return n == static_cast<ssize_t>(found.size()) && found == text;
}

std::int64_t WeightCache::Place(std::int64_t bytes) {
  const std::int64_t alignment = bytes >= kHugePageBytes ? kHugePageBytes : kPage;
  const std::int64_t begin = (cursor_ + kPage + alignment - 1) / alignment * alignment;
  cursor_ = begin + bytes;
  return begin;
}

std::optional<HugeBuffer> WeightCache::Map(std::string_view what, std::int64_t bytes) {
  if (fd_ < 0 || !mapped_) return std::nullopt;
  const std::int64_t begin = Place(bytes);
  struct stat status {};
  if (::fstat(fd_, &status) != 0 || cursor_ > status.st_size || !HasText(what, begin - kPage)) {
    RemoveOpenFile();
    GiveUp("does not hold the model's weights and was removed", 0);
    return std::nullopt;
  }
  auto mapped = HugeBuffer::MapFile(fd_, begin, bytes, what);
  if (mapped.ok()) return *std::move(mapped);
  GiveUp(std::string(mapped.status().message()), 0);
  return std::nullopt;
}

void WeightCache::RemoveOpenFile() const {
  struct stat open {};
  struct stat named {};
  if (::fstat(fd_, &open) == 0 && ::stat(path_.c_str(), &named) == 0 && SameFile(open, named)) {
    ::unlink(path_.c_str());
  }
}

void WeightCache::Append(std::string_view what, std::span<const std::byte> bytes) {
  if (fd_ < 0 || mapped_) return;
  MILLRACE_CHECK(what.size() <= kPage, "a description fits its page");
  const std::int64_t begin = Place(static_cast<std::int64_t>(bytes.size()));
  if (!WriteText(what, begin - kPage) || !Write(bytes, begin)) GiveUp("cannot be written", errno);
}

bool WeightCache::TakeName() {
  if (temporary_.empty()) {
    // A file can be linked to a free name only, and renamed over one that is taken.
    const std::string linked = absl::StrCat(path_, ".", ::getpid());
    ::unlink(linked.c_str());  // of a process that had our number and ended just here
    const std::string open = absl::StrCat("/proc/self/fd/", fd_);
    if (::linkat(AT_FDCWD, open.c_str(), AT_FDCWD, linked.c_str(), AT_SYMLINK_FOLLOW) != 0) {
      return false;
    }
    temporary_ = linked;
  }
  return ::rename(temporary_.c_str(), path_.c_str()) == 0;
}

void WeightCache::Finish() {
  if (fd_ < 0) return;
  if (mapped_) {
    Log(LogLevel::kInfo, "weights mapped from the cache", {{"file", path_}});
    return;
  }
  if (::fdatasync(fd_) != 0 || !TakeName()) return GiveUp("cannot be written", errno);
  temporary_.clear();
  Log(LogLevel::kInfo, "weights kept in the cache for the next start",
      {{"file", path_}, {"bytes", cursor_}});
}

}  // namespace millrace::cpu
