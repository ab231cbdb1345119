#include "runtime/backend/cpu/huge_buffer.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace::cpu {
namespace {

constexpr auto kHugePage = static_cast<std::size_t>(kHugePageBytes);
constexpr std::size_t kPage = 4096;

// Brings a mapped file into memory; errno, or 0.
int Populate(const std::byte* begin, std::size_t bytes) {
#ifdef MADV_POPULATE_READ
  if (::madvise(const_cast<std::byte*>(begin), bytes, MADV_POPULATE_READ) == 0) return 0;
  if (errno != EINVAL) return errno;
#endif
  // Linux before 5.14: a byte of each page, one after the other.
  for (std::size_t at = 0; at < bytes; at += kPage) {
    static_cast<void>(*static_cast<const volatile std::byte*>(begin + at));
  }
  return 0;
}

}  // namespace

HugeBuffer::~HugeBuffer() {
  if (mapping_ != nullptr) ::munmap(mapping_, mapping_bytes_);
}

HugeBuffer::HugeBuffer(HugeBuffer&& other) noexcept { *this = std::move(other); }

HugeBuffer& HugeBuffer::operator=(HugeBuffer&& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_bytes_, other.mapping_bytes_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

absl::StatusOr<HugeBuffer> HugeBuffer::Allocate(std::int64_t bytes, std::string_view what) {
  const auto size = static_cast<std::size_t>(bytes);
  // A small buffer takes small pages: hundreds of norm vectors must not cost 2 MiB each.
  const bool huge = size >= kHugePage;
  const std::size_t alignment = huge ? kHugePage : kPage;
  const std::size_t mapped =
      (size + alignment - 1) / alignment * alignment + (huge ? kHugePage : 0);
  void* mapping = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(std::string(what), ": no memory for ", bytes,
                                                     " bytes: ", std::strerror(errno)));
  }
  HugeBuffer out;
  out.mapping_ = mapping;
  out.mapping_bytes_ = mapped;
  const auto address = reinterpret_cast<std::uintptr_t>(mapping);
  const std::uintptr_t aligned = (address + alignment - 1) / alignment * alignment;
  out.data_ = reinterpret_cast<std::byte*>(aligned);
  out.size_ = bytes;
  // Advice only: without huge pages all works, a few percent slower.
  if (huge) ::madvise(out.data_, (size + kHugePage - 1) / kHugePage * kHugePage, MADV_HUGEPAGE);
  return out;
}

absl::StatusOr<HugeBuffer> HugeBuffer::MapFile(int fd, std::int64_t offset, std::int64_t bytes,
                                               std::string_view what) {
  const auto size = static_cast<std::size_t>(bytes);
  void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (mapping == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat(std::string(what), ": cannot map ", bytes, " bytes: ", std::strerror(errno)));
  }
  HugeBuffer out;
  out.mapping_ = mapping;
  out.mapping_bytes_ = size;
  out.data_ = static_cast<std::byte*>(mapping);
  out.size_ = bytes;
  ::madvise(mapping, size, MADV_HUGEPAGE);  // advice only: where the file system has them
  if (const int error = Populate(out.data_, size); error != 0) {
    return absl::DataLossError(
        absl::StrCat(std::string(what), ": cannot be read: ", std::strerror(error)));
  }
  return out;
}

}  // namespace millrace::cpu
