// A readable run of bytes whose place (a file, memory) the reader does not know. The model file
// hands these out for its tensors; a backend reads them straight into its own final layout, so that
// the weights exist once.
#ifndef MILLRACE_BASE_BYTE_SOURCE_H_
#define MILLRACE_BASE_BYTE_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"

namespace millrace {

// Thread-safe: reads at different offsets may run at once.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual std::uint64_t size_bytes() const = 0;
  // Fills `out` with the bytes from `offset_bytes` on, or fails (DATA_LOSS: the file got shorter).
  // REQUIRES: offset_bytes + out.size() <= size_bytes().
  virtual absl::Status Read(std::uint64_t offset_bytes, std::span<std::byte> out) const = 0;
  // Now: differs from what it was or will be whenever the bytes may differ. Empty if unknown.
  virtual std::string Stamp() const { return {}; }
};

}  // namespace millrace

#endif  // MILLRACE_BASE_BYTE_SOURCE_H_
