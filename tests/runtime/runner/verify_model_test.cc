#include "runtime/runner/verify_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "kernels/dequantize.h"
#include "tests/support/gguf_builder.h"

namespace millrace::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Q8_0 blocks of which one has `scale`.
std::string Q8Bytes(std::size_t blocks, std::size_t at, float scale) {
  std::string bytes(blocks * 34, '\x01');
  const HalfBits half = FloatToHalf(scale);
  bytes.replace(at * 34, 2, reinterpret_cast<const char*>(&half), 2);
  return bytes;
}

VerifyReport Verify(const std::string& bytes, int threads,
                    const std::function<void(std::uint64_t, std::uint64_t)>& progress = nullptr) {
  const TempFile temp(bytes);
  const auto file = GgufFile::Open(temp.path());
  EXPECT_TRUE(file.ok()) << file.status();
  auto report = VerifyModel(**file, threads, progress);
  EXPECT_TRUE(report.ok()) << report.status();
  return *std::move(report);
}

// Large enough for several chunks and tasks, with padding between and a tail behind.
GgufBuilder Model(float scale_in_b, float value_in_c) {
  GgufBuilder builder;
  builder.Add("general.architecture", "qwen3moe");
  builder.AddTensor("a", DType::kF32, {3}, FloatBytes(std::vector<float>{1, 2, 3}));
  constexpr std::size_t kBlocks = 40 * 16384;  // 22 MB
  builder.AddTensor("b", DType::kQ8_0, {16384, 40 * 32}, Q8Bytes(kBlocks, 40 * 12345, scale_in_b));
  builder.AddTensor("c", DType::kF32, {2, 2}, FloatBytes(std::vector<float>{0, 1, 2, value_in_c}));
  return builder;
}

TEST(VerifyModel, HashesTheWholeFileAndFindsNothingWrongWithASoundOne) {
  const std::string bytes = Model(0.5F, 1.0F).Build() + "tail";
  Sha256 hash;
  hash.Add(std::as_bytes(std::span(bytes)));
  const std::string expected = hash.Finish();
  for (const int threads : {1, 2, 3}) {
    std::uint64_t last = 0;
    const VerifyReport report = Verify(bytes, threads, [&](std::uint64_t done, std::uint64_t all) {
      EXPECT_GT(done, last);
      EXPECT_EQ(all, bytes.size());
      last = done;
    });
    EXPECT_EQ(last, bytes.size());
    ASSERT_EQ(report.files.size(), 1U);
    EXPECT_EQ(report.files[0].sha256, expected);
    EXPECT_EQ(report.files[0].size_bytes, bytes.size());
    EXPECT_THAT(report.faults, ElementsAre());
  }
}

TEST(VerifyModel, NamesTheTensorAndThePlaceOfWhatIsNoFiniteNumber) {
  for (const int threads : {1, 2}) {
    const VerifyReport report =
        Verify(Model(INFINITY, -std::numeric_limits<float>::quiet_NaN()).Build(), threads);
    EXPECT_THAT(report.faults, ElementsAre(HasSubstr("tensor 'b': value 0 of row 12345"),
                                           HasSubstr("tensor 'c': value 1 of row 1")));
  }
}

TEST(VerifyModel, SaysWhichFileGotShorter) {
  const TempFile temp(Model(1.0F, 1.0F).Build());
  const auto file = GgufFile::Open(temp.path()).value();
  temp.Truncate(1 << 20);
  const auto report = VerifyModel(*file, 2, nullptr);
  EXPECT_EQ(report.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(report.status().message()), HasSubstr(temp.path()));
}

}  // namespace
}  // namespace millrace::testing
