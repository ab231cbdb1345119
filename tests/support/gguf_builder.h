// Writes small GGUF files in memory for tests: tiny models, and files that are wrong on purpose.
//
//   GgufBuilder builder;
//   builder.Add("general.architecture", "qwen3moe").Add("qwen3moe.block_count", 2U);
//   builder.AddTensor("output_norm.weight", DType::kF32, {64}, FloatBytes(std::vector(64, 1.0F)));
//   TempFile file(builder.Build());   // or hand the bytes over
//
// Shapes are outermost first, as in GgufTensor. Not thread-safe; a value that owns its bytes.
#ifndef MILLRACE_TESTS_SUPPORT_GGUF_BUILDER_H_
#define MILLRACE_TESTS_SUPPORT_GGUF_BUILDER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dtype.h"

namespace millrace::testing {

// The numbers of value types in a file.
enum class GgufType : std::uint32_t {
  kUint8 = 0,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

class GgufBuilder {
 public:
  // Keys, in the order of the calls. Each C++ type is written as the GGUF type of its width.
  GgufBuilder& Add(std::string_view key, std::uint8_t value);
  GgufBuilder& Add(std::string_view key, std::int8_t value);
  GgufBuilder& Add(std::string_view key, std::uint16_t value);
  GgufBuilder& Add(std::string_view key, std::int16_t value);
  GgufBuilder& Add(std::string_view key, std::uint32_t value);
  GgufBuilder& Add(std::string_view key, std::int32_t value);
  GgufBuilder& Add(std::string_view key, std::uint64_t value);
  GgufBuilder& Add(std::string_view key, std::int64_t value);
  GgufBuilder& Add(std::string_view key, float value);
  GgufBuilder& Add(std::string_view key, double value);
  GgufBuilder& Add(std::string_view key, bool value);
  GgufBuilder& Add(std::string_view key, std::string_view value);
  GgufBuilder& Add(std::string_view key, const char* value);
  GgufBuilder& Add(std::string_view key, const std::vector<std::string>& values);
  GgufBuilder& Add(std::string_view key, const std::vector<std::uint8_t>& values);
  GgufBuilder& Add(std::string_view key, const std::vector<std::int32_t>& values);
  GgufBuilder& Add(std::string_view key, const std::vector<std::uint32_t>& values);
  GgufBuilder& Add(std::string_view key, const std::vector<std::int64_t>& values);
  GgufBuilder& Add(std::string_view key, const std::vector<std::uint64_t>& values);
  GgufBuilder& Add(std::string_view key, const std::vector<float>& values);
  GgufBuilder& Add(std::string_view key, const std::vector<bool>& values);
  // A key with any type number and any bytes behind it.
  GgufBuilder& AddRaw(std::string_view key, std::uint32_t type, std::string_view bytes);

  // A tensor; `bytes` must have the size of dtype and shape, or be empty for zeros.
  GgufBuilder& AddTensor(std::string_view name, DType dtype, std::vector<std::int64_t> shape,
                         std::string bytes = {});
  // A tensor entry as it stands in the file: dimensions innermost first, any type, any offset into
  // the data (nullopt: behind the tensor before it), and the bytes it adds to the data.
  struct RawTensor {
    std::string name;
    std::vector<std::uint64_t> dims;
    std::uint32_t type = 0;
    std::optional<std::uint64_t> offset;
    std::string bytes;
    std::optional<std::uint32_t> num_dims;  // instead of dims.size()
  };
  GgufBuilder& AddRawTensor(RawTensor tensor);

  // What the head of the file says; by default the truth.
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::optional<std::uint64_t> key_count;
  std::optional<std::uint64_t> tensor_count;
  // Where tensors are placed; adds no `general.alignment` key by itself.
  std::uint64_t alignment = 32;

  // The header alone, without the padding in front of the data.
  std::string BuildHeader() const;
  std::string Build() const;

 private:
  struct Key {
    std::string name;
    std::uint32_t type;
    std::string bytes;
  };
  std::vector<Key> keys_;
  std::vector<RawTensor> tensors_;
};

// Little-endian bytes of a number, as a file holds it, and of a string with its length.
template <typename T>
std::string BytesOf(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}
std::string StringBytes(std::string_view text);
std::string FloatBytes(std::span<const float> values);

// A fresh temporary directory; the caller removes it.
std::string MakeTempFolder();

// A file with `bytes` in a fresh temporary directory; both go with the object.
class TempFile {
 public:
  explicit TempFile(std::string_view bytes, std::string_view name = "model.gguf");
  ~TempFile();
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;

  const std::string& path() const { return path_; }
  void Overwrite(std::string_view bytes) const;
  void Truncate(std::uint64_t size_bytes) const;

 private:
  std::string directory_;
  std::string path_;
};

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_SUPPORT_GGUF_BUILDER_H_
