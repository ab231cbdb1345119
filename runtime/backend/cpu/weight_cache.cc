#include "runtime/backend/cpu/weight_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "kernels/tile_layout.h"

namespace millrace::cpu {
namespace {

constexpr std::int64_t kPage = 4096;
// As HugeBuffer: large weights lie where huge pages may.
constexpr std::int64_t kHugePage = std::int64_t{2} << 20;

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

}  // namespace

WeightCache::WeightCache(const WeightCacheOptions& options, Isa isa)
    : title_(Title(options, isa)), path_(Path(options, isa)), cursor_(kPage) {
  mapped_ = OpenExisting();
  if (!mapped_) BeginNew();
}

WeightCache::~WeightCache() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

bool WeightCache::OpenExisting() {
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) return false;
  std::string found(title_.size(), '\0');
  struct stat status {};
  const bool ours =
      ::fstat(fd_, &status) == 0 &&
      ::pread(fd_, found.data(), found.size(), 0) == static_cast<ssize_t>(found.size()) &&
      found == title_;
  file_bytes_ = status.st_size;
  if (!ours) {
    ::close(fd_);
    fd_ = -1;
  }
  return ours;
}

void WeightCache::BeginNew() {
  temporary_ = path_ + ".XXXXXX";
  fd_ = ::mkstemp(temporary_.data());
  if (fd_ < 0) {
    temporary_.clear();
    return GiveUp("cannot be made");
  }
  if (!Write({reinterpret_cast<const std::byte*>(title_.data()), title_.size()}, 0)) {
    GiveUp("cannot be written");
  }
}

void WeightCache::GiveUp(std::string_view what) {
  Log(LogLevel::kWarning, "the weight cache is not used",
      {{"file", path_}, {"why", absl::StrCat(std::string(what), ": ", std::strerror(errno))}});
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

bool WeightCache::Write(std::span<const std::byte> bytes, std::int64_t offset) const {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    offset += n;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

std::int64_t WeightCache::Place(std::int64_t bytes) {
  const std::int64_t alignment = bytes >= kHugePage ? kHugePage : kPage;
  const std::int64_t begin = (cursor_ + alignment - 1) / alignment * alignment;
  cursor_ = begin + bytes;
  return begin;
}

std::optional<HugeBuffer> WeightCache::Map(std::int64_t bytes, std::string_view name) {
  if (fd_ < 0 || !mapped_) return std::nullopt;
  const std::int64_t begin = Place(bytes);
  if (cursor_ > file_bytes_) {
    errno = ENODATA;
    GiveUp("is too short and was removed");
    ::unlink(path_.c_str());
    return std::nullopt;
  }
  auto mapped = HugeBuffer::MapFile(fd_, begin, bytes, name);
  if (!mapped.ok()) {
    GiveUp("cannot be mapped");
    return std::nullopt;
  }
  return *std::move(mapped);
}

void WeightCache::Append(std::span<const std::byte> bytes) {
  if (fd_ < 0 || mapped_) return;
  if (!Write(bytes, Place(static_cast<std::int64_t>(bytes.size())))) GiveUp("cannot be written");
}

void WeightCache::Finish() {
  if (fd_ < 0) return;
  if (mapped_) {
    Log(LogLevel::kInfo, "weights mapped from the cache", {{"file", path_}});
    return;
  }
  if (::fdatasync(fd_) != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    return GiveUp("cannot be written");
  }
  temporary_.clear();
  Log(LogLevel::kInfo, "weights kept in the cache for the next start",
      {{"file", path_}, {"bytes", absl::StrCat(cursor_)}});
}

}  // namespace millrace::cpu
