// Walks over the header of a file from front to back. The bytes it has passed are kept in memory of
// its own, so views into them stay good whatever becomes of the file, and only those bytes are ever
// read. Not thread-safe.
#ifndef MILLRACE_RUNTIME_GGUF_HEADER_READER_H_
#define MILLRACE_RUNTIME_GGUF_HEADER_READER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/byte_source.h"

namespace millrace {

// INVALID_ARGUMENT; every error about a file's content is made here, so that all look alike.
absl::Status BadGguf(const std::string& what);

class HeaderReader {
 public:
  // `file` must outlive the reader.
  explicit HeaderReader(const ByteSource& file);

  std::uint64_t position() const { return position_; }
  std::uint64_t file_bytes() const { return file_.size_bytes(); }
  std::uint64_t remaining() const { return file_.size_bytes() - position_; }

  // The next number; nullopt when the file ends before it or cannot be read, see EndStatus.
  template <typename T>
  std::optional<T> Read() {
    if (!Fill(sizeof(T))) return std::nullopt;
    T value;
    std::memcpy(&value, bytes_.get() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  // The next `count` bytes.
  std::optional<std::string_view> ReadBytes(std::uint64_t count);

  // A string of at most `limit` bytes; `what` says in an error which one it is.
  absl::StatusOr<std::string_view> ReadString(const std::string& what, std::uint64_t limit);

  // INVALID_ARGUMENT unless `count` entries of at least `smallest_bytes` fit into the rest of the
  // file and are no more than `limit`.
  absl::Status CheckCount(const std::string& what, std::uint64_t count, std::uint64_t limit,
                          std::uint64_t smallest_bytes) const;

  // Why a read returned nullopt while reading `what`.
  absl::Status EndStatus(const std::string& what) const;

  // The bytes that all views point into.
  std::unique_ptr<std::byte[]> TakeBytes() { return std::move(bytes_); }

 private:
  // Makes `count` bytes from position() on present.
  bool Fill(std::uint64_t count);

  const ByteSource& file_;
  const std::uint64_t capacity_;
  std::unique_ptr<std::byte[]> bytes_;
  std::uint64_t position_ = 0;
  std::uint64_t filled_ = 0;
  absl::Status read_status_;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_GGUF_HEADER_READER_H_
