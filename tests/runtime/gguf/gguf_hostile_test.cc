// Files that are wrong on purpose: one line that names what is wrong, and nothing worse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/runtime/gguf/small_file.h"

namespace millrace::testing {
namespace {

using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

struct Bad {
  std::string what;  // the message must say it
  std::function<void(GgufBuilder*)> change;
  absl::StatusCode code = kInvalid;
};

std::string Length(std::uint64_t length) { return BytesOf(length); }
// type and count of an array
std::string Array(std::uint32_t type, std::uint64_t count) {
  return BytesOf(type) + BytesOf(count);
}

void AddTensor(GgufBuilder* b, std::vector<std::uint64_t> dims, std::uint32_t type = 0,
               std::optional<std::uint64_t> offset = std::nullopt, std::string bytes = "") {
  b->AddRawTensor({.name = "bad",
                   .dims = std::move(dims),
                   .type = type,
                   .offset = offset,
                   .bytes = std::move(bytes)});
}

const std::vector<Bad>& Cases() {
  static const std::vector<Bad> cases = {
      {"begin with 'GGUF'", [](GgufBuilder* b) { b->magic = "GGML"; }},
      {"version 1", [](GgufBuilder* b) { b->version = 1; }},
      {"version 4", [](GgufBuilder* b) { b->version = 4; }},
      {"version 0", [](GgufBuilder* b) { b->version = 0; }},
      {"big-endian", [](GgufBuilder* b) { b->version = 0x03000000; }},
      {"metadata keys", [](GgufBuilder* b) { b->key_count = UINT64_MAX; }},
      {"metadata keys", [](GgufBuilder* b) { b->key_count = std::uint64_t{1} << 32U; }},
      {"metadata keys", [](GgufBuilder* b) { b->key_count = 4097; }},
      {"tensors", [](GgufBuilder* b) { b->tensor_count = UINT64_MAX; }},
      {"tensors", [](GgufBuilder* b) { b->tensor_count = 16385; }},
      {"'a.string' stands in the file twice", [](GgufBuilder* b) { b->Add("a.string", "x"); }},
      {"number 17", [](GgufBuilder* b) { b->Add("", "x"); }},
      {"not printable UTF-8", [](GgufBuilder* b) { b->Add("\xC0\x80", "x"); }},
      {"not printable UTF-8", [](GgufBuilder* b) { b->Add("new\nline", "x"); }},
      {"at most 256", [](GgufBuilder* b) { b->Add(std::string(257, 'k'), "x"); }},
      {"'bad' is value type 13", [](GgufBuilder* b) { b->AddRaw("bad", 13, "12345678"); }},
      {"'bad' is value type 4294967295",
       [](GgufBuilder* b) { b->AddRaw("bad", UINT32_MAX, "12345678"); }},
      {"'bad' holds a boolean of 2", [](GgufBuilder* b) { b->AddRaw("bad", 7, "\x02"); }},
      {"'bad' holds a string of 9223372036854775808 bytes",
       [](GgufBuilder* b) { b->AddRaw("bad", 8, Length(std::uint64_t{1} << 63U)); }},
      {"'bad' holds a string of 1048577",
       [](GgufBuilder* b) { b->AddRaw("bad", 8, Length((1U << 20U) + 1)); }},
      {"array of arrays", [](GgufBuilder* b) { b->AddRaw("bad", 9, Array(9, 1) + Array(0, 1)); }},
      {"an array of value type 77", [](GgufBuilder* b) { b->AddRaw("bad", 9, Array(77, 1)); }},
      {"elements of metadata key 'bad'",
       [](GgufBuilder* b) { b->AddRaw("bad", 9, Array(0, UINT64_MAX)); }},
      {"elements of metadata key 'bad'",
       [](GgufBuilder* b) { b->AddRaw("bad", 9, Array(0, 65537)); }},
      {"elements of metadata key 'tokenizer.ggml.tokens'",
       [](GgufBuilder* b) { b->AddRaw("tokenizer.ggml.tokens", 9, Array(8, (1U << 20U) + 1)); }},
      {"general.alignment is 3",
       [](GgufBuilder* b) { b->Add("general.alignment", std::uint32_t{3}); }},
      {"general.alignment is 0",
       [](GgufBuilder* b) { b->Add("general.alignment", std::uint32_t{0}); }},
      {"general.alignment is 8192",
       [](GgufBuilder* b) { b->Add("general.alignment", std::uint32_t{8192}); }},
      {"general.alignment: want", [](GgufBuilder* b) { b->Add("general.alignment", "32"); }},
      {"split.count is 2, but there is no split.no",
       [](GgufBuilder* b) { b->Add("split.count", std::uint16_t{2}); }},
      {"tensor 'bad' has 0 dimensions", [](GgufBuilder* b) { AddTensor(b, {}); }},
      {"tensor 'bad' has 5 dimensions",
       [](GgufBuilder* b) {
         AddTensor(b, {1, 1, 1, 1, 1});
       }},
      {"tensor 'bad' has 4294967295 dimensions",
       [](GgufBuilder* b) {
         b->AddRawTensor({.name = "bad", .dims = {1}, .num_dims = UINT32_MAX});
       }},
      {"dimension 1 is zero",
       [](GgufBuilder* b) {
         AddTensor(b, {4, 0});
       }},
      {"more than 2^63 bytes",
       [](GgufBuilder* b) {
         AddTensor(b, {std::uint64_t{1} << 32U, std::uint64_t{1} << 31U, 2});
       }},
      {"more than 2^63 bytes",
       [](GgufBuilder* b) {
         AddTensor(b, {UINT64_MAX, UINT64_MAX});
       }},
      {"rows of 100 values are no multiple of 256",
       [](GgufBuilder* b) {
         AddTensor(b, {100, 2}, 12);
       }},
      {"'bad' has type 16 (IQ2_XXS); supported are",
       [](GgufBuilder* b) { AddTensor(b, {256}, 16); }, kUnimplemented},
      {"'bad' has type 4294967295", [](GgufBuilder* b) { AddTensor(b, {256}, UINT32_MAX); },
       kUnimplemented},
      {"offset 1 is no multiple of the alignment",
       [](GgufBuilder* b) { AddTensor(b, {4}, 0, 1, std::string(16, 0)); }},
      {"end beyond the file", [](GgufBuilder* b) { AddTensor(b, {1 << 20}, 0, 0); }},
      {"end beyond the file",
       [](GgufBuilder* b) { AddTensor(b, {4}, 0, UINT64_MAX - 31, std::string(16, 0)); }},
      {"'first' and tensor 'bad' overlap", [](GgufBuilder* b) { AddTensor(b, {4}, 0, 0); }},
      {"tensor 'first' stands in the file twice",
       [](GgufBuilder* b) { b->AddTensor("first", DType::kF32, {4}); }},
      {"at most 63", [](GgufBuilder* b) { b->AddTensor(std::string(64, 't'), DType::kF32, {4}); }},
      {"the name of tensor number 3",
       [](GgufBuilder* b) { b->AddTensor("\xFF", DType::kF32, {4}); }},
  };
  return cases;
}

TEST(GgufHostile, EveryCraftedFileIsRefusedInOneLineThatSaysWhatIsWrong) {
  for (const Bad& bad : Cases()) {
    SCOPED_TRACE(bad.what);
    GgufBuilder builder = SmallFile();
    bad.change(&builder);
    const auto file = Parse(builder.Build());
    ASSERT_FALSE(file.ok());
    EXPECT_EQ(file.status().code(), bad.code) << file.status();
    const std::string message(file.status().message());
    EXPECT_THAT(message, HasSubstr(bad.what));
    EXPECT_THAT(message, ::testing::StartsWith("test.gguf: GGUF: "));
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

TEST(GgufHostile, EveryTruncationIsAnError) {
  const std::string whole = SmallFile().Build();
  // The last tensor ends before the padding behind it.
  const auto file = Parse(whole).value();
  const GgufTensor& last = *file->FindTensor("third");
  const std::uint64_t needed = last.offset_bytes + last.size_bytes;
  for (std::uint64_t size = 0; size < needed; ++size) {
    const auto cut = Parse(whole.substr(0, size));
    ASSERT_FALSE(cut.ok()) << size;
    ASSERT_EQ(cut.status().code(), kInvalid) << cut.status();
  }
  EXPECT_TRUE(Parse(whole.substr(0, needed)).ok());
}

TEST(GgufHostile, EveryTruncationOfARealFileIsAnError) {
  const std::string whole = SmallFile().Build();
  const TempFile temp(whole);
  for (std::uint64_t size = whole.size() - 64; size > 0;
       size -= std::min<std::uint64_t>(size, 13)) {
    temp.Truncate(size);
    ASSERT_FALSE(GgufFile::Open(temp.path()).ok()) << size;
  }
}

}  // namespace
}  // namespace millrace::testing
