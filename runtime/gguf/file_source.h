// A regular file as a ByteSource, and a part of a source under a name. Thread-safe.
#ifndef MILLRACE_RUNTIME_GGUF_FILE_SOURCE_H_
#define MILLRACE_RUNTIME_GGUF_FILE_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/byte_source.h"

namespace millrace {

// Opens `path` for reading with pread. NOT_FOUND, PERMISSION_DENIED or INVALID_ARGUMENT (no regular
// file, or no file to open) naming the path. The page cache is dropped behind the reads of
// a file that takes more than half of the memory at hand.
absl::StatusOr<std::shared_ptr<const ByteSource>> OpenFileSource(const std::string& path);

// The bytes [begin_bytes, begin_bytes + size_bytes) of `whole`; a read that fails says that it was
// of `what`.
class PartOfSource final : public ByteSource {
 public:
  PartOfSource(std::shared_ptr<const ByteSource> whole, std::string what, std::uint64_t begin_bytes,
               std::uint64_t size_bytes);
  std::uint64_t size_bytes() const override { return size_; }
  absl::Status Read(std::uint64_t offset_bytes, std::span<std::byte> out) const override;

 private:
  const std::shared_ptr<const ByteSource> whole_;
  const std::string what_;
  const std::uint64_t begin_;
  const std::uint64_t size_;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_GGUF_FILE_SOURCE_H_
