// Zeroed memory on 2 MiB boundaries that the kernel may back with huge pages, or a part of a file
// mapped to be read. Move-only owner; the bytes are the caller's to synchronise.
#ifndef MILLRACE_RUNTIME_BACKEND_CPU_HUGE_BUFFER_H_
#define MILLRACE_RUNTIME_BACKEND_CPU_HUGE_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

namespace millrace::cpu {

// Of the processor's larger pages; what is smaller takes small ones.
inline constexpr std::int64_t kHugePageBytes = std::int64_t{2} << 20;

class HugeBuffer {
 public:
  HugeBuffer() = default;
  ~HugeBuffer();
  HugeBuffer(HugeBuffer&& other) noexcept;
  HugeBuffer& operator=(HugeBuffer&& other) noexcept;
  HugeBuffer(const HugeBuffer&) = delete;
  HugeBuffer& operator=(const HugeBuffer&) = delete;

  // RESOURCE_EXHAUSTED naming `what` and the bytes when the system refuses.
  static absl::StatusOr<HugeBuffer> Allocate(std::int64_t bytes, std::string_view what);

  // Bytes [offset, offset + bytes) of an open file, in memory when this returns; they are the page
  // cache's, so writing to them faults, and reading them does once the file is cut short.
  // RESOURCE_EXHAUSTED or DATA_LOSS naming `what`. REQUIRES: `offset` is a multiple of the page
  // size.
  static absl::StatusOr<HugeBuffer> MapFile(int fd, std::int64_t offset, std::int64_t bytes,
                                            std::string_view what);

  std::byte* data() const { return data_; }
  std::int64_t size() const { return size_; }

 private:
  void* mapping_ = nullptr;
  std::size_t mapping_bytes_ = 0;
  std::byte* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace millrace::cpu

#endif  // MILLRACE_RUNTIME_BACKEND_CPU_HUGE_BUFFER_H_
