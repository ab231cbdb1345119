// A small valid file with every type of value and several tensors.
#ifndef MILLRACE_TESTS_RUNTIME_GGUF_SMALL_FILE_H_
#define MILLRACE_TESTS_RUNTIME_GGUF_SMALL_FILE_H_

#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/byte_source.h"
#include "runtime/gguf/gguf_file.h"
#include "tests/support/gguf_builder.h"

namespace millrace::testing {

// Bytes in memory as a source. Thread-safe (immutable).
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::string bytes) : bytes_(std::move(bytes)) {}
  std::uint64_t size_bytes() const override { return bytes_.size(); }
  absl::Status Read(std::uint64_t offset_bytes, std::span<std::byte> out) const override {
    std::memcpy(out.data(), bytes_.data() + offset_bytes, out.size());
    return absl::OkStatus();
  }

 private:
  const std::string bytes_;
};

inline absl::StatusOr<std::shared_ptr<const GgufFile>> Parse(std::string bytes) {
  return GgufFile::FromSource(std::make_shared<MemorySource>(std::move(bytes)), "test.gguf");
}

inline GgufBuilder SmallFile() {
  GgufBuilder builder;
  builder.Add("general.architecture", "qwen3moe")
      .Add("a.uint8", std::uint8_t{200})
      .Add("a.int8", std::int8_t{-100})
      .Add("a.uint16", std::uint16_t{60000})
      .Add("a.int16", std::int16_t{-30000})
      .Add("a.uint32", std::uint32_t{4000000000U})
      .Add("a.int32", std::int32_t{-2000000000})
      .Add("a.uint64", std::uint64_t{1} << 63U)
      .Add("a.int64", std::int64_t{-5})
      .Add("a.float32", 0.5F)
      .Add("a.float64", 0.1)
      .Add("a.bool", true)
      .Add("a.string", "text")
      .Add("a.strings", std::vector<std::string>{"one", "", "three"})
      .Add("a.numbers", std::vector<std::int32_t>{1, -2, 3})
      .Add("a.floats", std::vector<float>{1.5F, 2.5F})
      .Add("a.bools", std::vector<bool>{true, false})
      .AddTensor("first", DType::kF32, {2, 3})
      .AddTensor("second", DType::kQ4_K, {3, 2, 256})
      .AddTensor("third", DType::kF16, {7});
  return builder;
}

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_RUNTIME_GGUF_SMALL_FILE_H_
