#include "tests/support/gguf_builder.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>

#include "base/check.h"

namespace millrace::testing {
namespace {

template <typename T>
std::string ArrayBytes(GgufType type, const std::vector<T>& values) {
  std::string out = BytesOf(type) + BytesOf(std::uint64_t{values.size()});
  for (const T value : values) out += BytesOf(value);
  return out;
}

constexpr std::uint32_t Number(GgufType type) { return static_cast<std::uint32_t>(type); }
constexpr std::uint32_t kArray = Number(GgufType::kArray);

std::uint64_t AlignUp(std::uint64_t value, std::uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace

std::string StringBytes(std::string_view text) {
  return BytesOf(std::uint64_t{text.size()}) + std::string(text);
}

std::string FloatBytes(std::span<const float> values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}

GgufBuilder& GgufBuilder::AddRaw(std::string_view key, std::uint32_t type, std::string_view bytes) {
  keys_.push_back({std::string(key), type, std::string(bytes)});
  return *this;
}

GgufBuilder& GgufBuilder::Add(std::string_view key, std::uint8_t value) {
  return AddRaw(key, Number(GgufType::kUint8), BytesOf(value));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, std::int8_t value) {
  return AddRaw(key, Number(GgufType::kInt8), BytesOf(value));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, std::uint16_t value) {
  return AddRaw(key, Number(GgufType::kUint16), BytesOf(value));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, std::int16_t value) {
  return AddRaw(key, Number(GgufType::kInt16), BytesOf(value));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, std::uint32_t value) {
  return AddRaw(key, Number(GgufType::kUint32), BytesOf(value));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, std::int32_t value) {
  return AddRaw(key, Number(GgufType::kInt32), BytesOf(value));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, std::uint64_t value) {
  return AddRaw(key, Number(GgufType::kUint64), BytesOf(value));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, std::int64_t value) {
  return AddRaw(key, Number(GgufType::kInt64), BytesOf(value));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, float value) {
  return AddRaw(key, Number(GgufType::kFloat32), BytesOf(value));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, double value) {
  return AddRaw(key, Number(GgufType::kFloat64), BytesOf(value));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, bool value) {
  return AddRaw(key, Number(GgufType::kBool), BytesOf(std::uint8_t{value}));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, std::string_view value) {
  return AddRaw(key, Number(GgufType::kString), StringBytes(value));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, const char* value) {
  return Add(key, std::string_view(value));
}

GgufBuilder& GgufBuilder::Add(std::string_view key, const std::vector<std::string>& values) {
  std::string bytes = BytesOf(GgufType::kString) + BytesOf(std::uint64_t{values.size()});
  for (const std::string& value : values) bytes += StringBytes(value);
  return AddRaw(key, kArray, bytes);
}
GgufBuilder& GgufBuilder::Add(std::string_view key, const std::vector<std::uint8_t>& values) {
  return AddRaw(key, kArray, ArrayBytes(GgufType::kUint8, values));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, const std::vector<std::int32_t>& values) {
  return AddRaw(key, kArray, ArrayBytes(GgufType::kInt32, values));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, const std::vector<std::uint32_t>& values) {
  return AddRaw(key, kArray, ArrayBytes(GgufType::kUint32, values));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, const std::vector<std::int64_t>& values) {
  return AddRaw(key, kArray, ArrayBytes(GgufType::kInt64, values));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, const std::vector<std::uint64_t>& values) {
  return AddRaw(key, kArray, ArrayBytes(GgufType::kUint64, values));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, const std::vector<float>& values) {
  return AddRaw(key, kArray, ArrayBytes(GgufType::kFloat32, values));
}
GgufBuilder& GgufBuilder::Add(std::string_view key, const std::vector<bool>& values) {
  return AddRaw(
      key, kArray,
      ArrayBytes(GgufType::kBool, std::vector<std::uint8_t>(values.begin(), values.end())));
}

GgufBuilder& GgufBuilder::AddTensor(std::string_view name, DType dtype,
                                    std::vector<std::int64_t> shape, std::string bytes) {
  MILLRACE_CHECK(!shape.empty(), "a tensor has at least one dimension");
  auto size = static_cast<std::size_t>(RowBytes(dtype, shape.back()));
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) size *= static_cast<std::size_t>(shape[i]);
  if (bytes.empty()) bytes.resize(size);
  MILLRACE_CHECK(bytes.size() == size, "the bytes have the size of dtype and shape");
  return AddRawTensor({.name = std::string(name),
                       .dims = std::vector<std::uint64_t>(shape.rbegin(), shape.rend()),
                       .type = Info(dtype).ggml_type,
                       .bytes = std::move(bytes)});
}

GgufBuilder& GgufBuilder::AddRawTensor(RawTensor tensor) {
  tensors_.push_back(std::move(tensor));
  return *this;
}

std::string GgufBuilder::BuildHeader() const {
  std::string out = magic + BytesOf(version);
  out += BytesOf(tensor_count.value_or(tensors_.size()));
  out += BytesOf(key_count.value_or(keys_.size()));
  for (const Key& key : keys_) out += StringBytes(key.name) + BytesOf(key.type) + key.bytes;
  std::uint64_t next = 0;
  for (const RawTensor& tensor : tensors_) {
    out += StringBytes(tensor.name);
    out += BytesOf(tensor.num_dims.value_or(static_cast<std::uint32_t>(tensor.dims.size())));
    for (const std::uint64_t dim : tensor.dims) out += BytesOf(dim);
    out += BytesOf(tensor.type) + BytesOf(tensor.offset.value_or(next));
    next = AlignUp(next + tensor.bytes.size(), alignment);
  }
  return out;
}

std::string GgufBuilder::Build() const {
  std::string out = BuildHeader();
  out.resize(AlignUp(out.size(), alignment));
  for (const RawTensor& tensor : tensors_) {
    out += tensor.bytes;
    out.resize(AlignUp(out.size(), alignment));
  }
  return out;
}

std::string MakeTempFolder() {
  std::string folder = (std::filesystem::temp_directory_path() / "millrace-test-XXXXXX").string();
  MILLRACE_CHECK(::mkdtemp(folder.data()) != nullptr, "the temporary directory is writable");
  return folder;
}

TempFile::TempFile(std::string_view bytes, std::string_view name) : directory_(MakeTempFolder()) {
  path_ = directory_ + "/" + std::string(name);
  Overwrite(bytes);
}

TempFile::~TempFile() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

void TempFile::Overwrite(std::string_view bytes) const {
  std::ofstream out(path_, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  MILLRACE_CHECK(out.flush().good(), "the temporary file could be written");
}

void TempFile::Truncate(std::uint64_t size_bytes) const {
  std::filesystem::resize_file(path_, size_bytes);
}

}  // namespace millrace::testing
