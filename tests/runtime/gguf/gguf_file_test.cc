// What a file says is what is read from it.
#include "runtime/gguf/gguf_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tests/runtime/gguf/small_file.h"

namespace millrace::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

TEST(GgufFile, ReadsEveryTypeOfValueInBothVersions) {
  for (const std::uint32_t version : {2U, 3U}) {
    GgufBuilder builder = SmallFile();
    builder.version = version;
    const auto file = Parse(builder.Build()).value();
    EXPECT_EQ(file->version(), version);
    EXPECT_EQ(file->GetInt("a.uint8", 0, 255).value(), 200);
    EXPECT_EQ(file->GetInt("a.int8", -128, 127).value(), -100);
    EXPECT_EQ(file->GetInt("a.uint16", 0, 65535).value(), 60000);
    EXPECT_EQ(file->GetInt("a.int16", -32768, 0).value(), -30000);
    EXPECT_EQ(file->GetInt("a.uint32", 0, INT64_MAX).value(), 4000000000);
    EXPECT_EQ(file->GetInt("a.int32", INT64_MIN, 0).value(), -2000000000);
    EXPECT_EQ(file->GetInt("a.int64", -10, 10).value(), -5);
    EXPECT_EQ(std::get<std::uint64_t>(*file->Find("a.uint64")), std::uint64_t{1} << 63U);
    EXPECT_EQ(file->GetFloat("a.float32").value(), 0.5);
    EXPECT_EQ(file->GetFloat("a.float64").value(), 0.1);
    EXPECT_EQ(file->GetFloat("a.int8").value(), -100.0);
    EXPECT_TRUE(file->GetBool("a.bool").value());
    EXPECT_EQ(file->GetString("a.string").value(), "text");
    EXPECT_THAT(file->GetStrings("a.strings").value(), ElementsAre("one", "", "three"));
    EXPECT_THAT(file->GetInts("a.numbers").value(), ElementsAre(1, -2, 3));
    EXPECT_THAT(std::get<std::vector<double>>(std::get<GgufArray>(*file->Find("a.floats"))),
                ElementsAre(1.5, 2.5));
    EXPECT_THAT(std::get<std::vector<bool>>(std::get<GgufArray>(*file->Find("a.bools"))),
                ElementsAre(true, false));
    EXPECT_THAT(file->metadata(), SizeIs(17));
    EXPECT_EQ(file->metadata()[0].first, "general.architecture");
  }
}

TEST(GgufFile, ReadsTensorsWithTheirShapesAndBytes) {
  GgufBuilder builder;
  builder.AddTensor("a", DType::kF32, {2, 2}, FloatBytes(std::vector<float>{1, 2, 3, 4}));
  builder.AddTensor("b", DType::kQ8_0, {3, 64});
  const auto file = Parse(builder.Build()).value();
  ASSERT_THAT(file->tensors(), SizeIs(2));
  const GgufTensor* a = file->FindTensor("a");
  ASSERT_NE(a, nullptr);
  EXPECT_THAT(a->shape, ElementsAre(2, 2));
  EXPECT_EQ(file->FindTensor("b")->size_bytes, 3 * 2 * 34U);
  EXPECT_EQ(file->FindTensor("c"), nullptr);
  const auto source = file->Source(*a);
  std::vector<float> values(2);
  ASSERT_TRUE(source->Read(8, std::as_writable_bytes(std::span(values))).ok());
  EXPECT_THAT(values, ElementsAre(3, 4));
}

TEST(GgufFile, PlacesTensorsByTheAlignmentOfTheFile) {
  GgufBuilder builder;
  builder.alignment = 128;
  builder.Add("general.alignment", std::uint32_t{128});
  builder.AddTensor("a", DType::kF32, {1}, FloatBytes(std::vector<float>{1}));
  builder.AddTensor("b", DType::kF32, {1}, FloatBytes(std::vector<float>{2}));
  const auto file = Parse(builder.Build()).value();
  EXPECT_EQ(file->FindTensor("a")->offset_bytes % 128, 0U);
  EXPECT_EQ(file->FindTensor("b")->offset_bytes, file->FindTensor("a")->offset_bytes + 128);
}

TEST(GgufFile, SaysWhatAKeyIsAndWhatItShouldBe) {
  GgufBuilder builder = SmallFile();
  builder.Add("a.nan", std::numeric_limits<float>::quiet_NaN());
  const auto file = Parse(builder.Build()).value();
  const auto message = [](const auto& result) { return std::string(result.status().message()); };
  EXPECT_EQ(file->GetInt("none", 0, 1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(message(file->GetInt("a.uint8", 0, 10)), HasSubstr("'a.uint8' is 200"));
  EXPECT_THAT(message(file->GetInt("a.uint64", 0, INT64_MAX)), HasSubstr("9223372036854775808"));
  EXPECT_THAT(message(file->GetInt("a.string", 0, 1)), HasSubstr("a string"));
  EXPECT_THAT(message(file->GetInt("a.float32", 0, 1)), HasSubstr("a float"));
  EXPECT_THAT(message(file->GetString("a.uint8")), HasSubstr("an integer"));
  EXPECT_THAT(message(file->GetStrings("a.numbers")), HasSubstr("an array of integers"));
  EXPECT_THAT(message(file->GetInts("a.strings")), HasSubstr("an array of strings"));
  EXPECT_THAT(message(file->GetBool("a.string")), HasSubstr("want a boolean"));
  EXPECT_THAT(message(file->GetFloat("a.nan")), HasSubstr("finite"));
}

TEST(GgufFile, NamesThePathOfWhatIsNoFile) {
  const auto missing = GgufFile::Open("no/such/file.gguf");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("no/such/file.gguf"));
  const auto folder = GgufFile::Open("/");
  EXPECT_EQ(folder.status().code(), absl::StatusCode::kInvalidArgument);
  const auto device = GgufFile::Open("/dev/null");
  EXPECT_EQ(device.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(GgufFile, ReportsAFileThatGotShorterAfterItWasOpened) {
  const TempFile temp(SmallFile().Build());
  const auto file = GgufFile::Open(temp.path()).value();
  const GgufTensor& last = *file->FindTensor("third");
  temp.Truncate(last.offset_bytes + 3);
  std::vector<std::byte> bytes(last.size_bytes);
  const absl::Status status = file->Source(last)->Read(0, bytes);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'third'"));
  temp.Truncate(0);
  EXPECT_EQ(file->GetString("a.string").value(), "text");  // the header is ours
}

}  // namespace
}  // namespace millrace::testing
