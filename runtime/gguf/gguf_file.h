// A GGUF model file: header read and checked, tensor bytes handed out as readable sources.
// Format facts: GGUF v2 and v3, little-endian. A model split over files (split.count) is opened by
// its first one, NAME-00001-of-0000N.gguf, and looks like one file.
//
// The header is kept in memory of its own, not mapped from the file: a file cut short after Open
// makes reads fail with DATA_LOSS and can never make a metadata string fault.
//
// Nothing in the file is trusted: every count is bounded by the bytes that remain divided by the
// smallest element, sizes are 64-bit and checked for overflow, nested arrays, duplicate keys or
// tensors, unknown types and anything past the end are refused with one line that names the key or
// tensor, what was found and what is supported.
//
// Immutable after Open and thread-safe. Sources keep the open file alive.
#ifndef MILLRACE_RUNTIME_GGUF_GGUF_FILE_H_
#define MILLRACE_RUNTIME_GGUF_GGUF_FILE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "base/byte_source.h"
#include "kernels/dtype.h"

namespace millrace {

// An array value. Strings are views into the header.
using GgufArray = std::variant<std::vector<std::int64_t>,   // all signed integer types
                               std::vector<std::uint64_t>,  // all unsigned integer types
                               std::vector<double>,         // f32, f64
                               std::vector<bool>, std::vector<std::string_view>>;
using GgufValue =
    std::variant<std::int64_t, std::uint64_t, double, bool, std::string_view, GgufArray>;

struct GgufTensor {
  std::string_view name;
  DType dtype;
  std::vector<std::int64_t> shape;  // outermost first, rows last: [n, k], [experts, n, k]
  std::uint64_t offset_bytes = 0;   // from the start of its file
  std::uint64_t size_bytes = 0;
  std::uint32_t part = 0;  // of a split file, from 0; its place in paths()
};

class GgufFile {
 public:
  // Reads and checks the header of `path` and of the files it is continued in. NOT_FOUND,
  // PERMISSION_DENIED, INVALID_ARGUMENT, or UNIMPLEMENTED for a tensor type we do not support; one
  // line that begins with the path of the file at fault.
  static absl::StatusOr<std::shared_ptr<const GgufFile>> Open(const std::string& path);
  // The same for bytes that lie elsewhere; `name` stands for the path. A part of a split file is
  // INVALID_ARGUMENT: the others cannot be found.
  static absl::StatusOr<std::shared_ptr<const GgufFile>> FromSource(
      std::shared_ptr<const ByteSource> source, const std::string& name);
  virtual ~GgufFile() = default;

  virtual const std::string& path() const = 0;             // of the first file
  virtual std::span<const std::string> paths() const = 0;  // of all, one if it is not split
  virtual std::uint32_t version() const = 0;
  virtual std::uint64_t file_bytes() const = 0;  // of all files together
  // Keys of the first file, in its order.
  virtual std::span<const std::pair<std::string_view, GgufValue>> metadata() const = 0;
  virtual const GgufValue* Find(std::string_view key) const = 0;  // null if absent
  virtual std::span<const GgufTensor> tensors() const = 0;        // in the order of the files
  virtual const GgufTensor* FindTensor(std::string_view name) const = 0;
  // The bytes of one of tensors(). Reads go through pread and drop the page cache behind them.
  virtual std::unique_ptr<ByteSource> Source(const GgufTensor& tensor) const = 0;
  // All bytes of the file paths()[part].
  virtual std::shared_ptr<const ByteSource> PartSource(std::size_t part) const = 0;

  // Typed access. A wrong type or a value out of range is INVALID_ARGUMENT that names the key, what
  // it is and what was wanted; an absent key is NOT_FOUND.
  absl::StatusOr<std::int64_t> GetInt(std::string_view key, std::int64_t min,
                                      std::int64_t max) const;
  absl::StatusOr<double> GetFloat(std::string_view key) const;  // integers convert; must be finite
  absl::StatusOr<bool> GetBool(std::string_view key) const;
  absl::StatusOr<std::string_view> GetString(std::string_view key) const;
  absl::StatusOr<std::span<const std::string_view>> GetStrings(std::string_view key) const;
  absl::StatusOr<std::vector<std::int64_t>> GetInts(
      std::string_view key) const;  // any integer array
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_GGUF_GGUF_FILE_H_
