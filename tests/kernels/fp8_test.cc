#include "kernels/fp8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/kv_quantize.h"
#include "tests/kernels/float_test_support.h"
#include "tests/kernels/fp8_reference.h"

namespace millrace {
namespace {

using testing::Fp8Magnitude;
using testing::kFp8Codes;
using testing::kInfinity;
using testing::kNan;
using testing::NearestFp8Code;

constexpr int kSign = 0x80;

int CodeOf(float value) { return FloatToFp8(value).bits; }
float ValueOf(int code) { return Fp8ToFloat({static_cast<std::uint8_t>(code)}); }

TEST(Fp8, HasTheValuesOfE4m3) {
  EXPECT_EQ(ValueOf(0x38), 1.0F);
  EXPECT_EQ(ValueOf(0x01), 0x1p-9F);  // the smallest
  EXPECT_EQ(ValueOf(0x08), 0x1p-6F);  // the smallest that is normal
  EXPECT_EQ(ValueOf(0x7E), 448.0F);   // the largest
  for (int code = 0; code < kFp8Codes; ++code) {
    EXPECT_EQ(ValueOf(code), Fp8Magnitude(code)) << code;
    EXPECT_EQ(ValueOf(kSign + code), -Fp8Magnitude(code)) << code;
    EXPECT_TRUE(std::signbit(ValueOf(kSign + code))) << code;
  }
  EXPECT_TRUE(std::isnan(ValueOf(0x7F)));
  EXPECT_TRUE(std::isnan(ValueOf(0xFF)));
}

TEST(Fp8, WritesEveryValueAsItsOwnCode) {
  for (int code = 0; code < 256; ++code) EXPECT_EQ(CodeOf(ValueOf(code)), code);
}

TEST(Fp8, RoundsToTheNearestAndTiesToEven) {
  for (int code = 0; code < kFp8Codes - 1; ++code) {
    // Exact: a float has mantissa for the half of a last bit.
    const auto tie = static_cast<float>((Fp8Magnitude(code) + Fp8Magnitude(code + 1)) / 2);
    EXPECT_EQ(CodeOf(tie), code + code % 2);
    EXPECT_EQ(CodeOf(-tie), kSign + code + code % 2);
    EXPECT_EQ(CodeOf(std::nextafter(tie, 0.0F)), code);
    EXPECT_EQ(CodeOf(std::nextafter(tie, 500.0F)), code + 1);
  }
  EXPECT_EQ(CodeOf(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(CodeOf(-1e-30F), kSign);
}

TEST(Fp8, SaturatesWhatIsLargerThanTheLargest) {
  for (const float large :
       {449.0F, 464.0F, 465.0F, 480.0F, 512.0F, 65504.0F, std::numeric_limits<float>::max()}) {
    EXPECT_EQ(CodeOf(large), 0x7E) << large;
    EXPECT_EQ(CodeOf(-large), 0xFE) << large;
  }
}

TEST(Fp8, KeepsFaultsAsNan) {
  const float payload = std::bit_cast<float>(0x7F800001U);  // a signalling NaN, of the last bit
  for (const float fault : {kNan, -kNan, kInfinity, -kInfinity, payload}) {
    EXPECT_TRUE(std::isnan(ValueOf(CodeOf(fault))));
  }
}

TEST(Fp8, RoundsAnyFloatAsTheSearchDoes) {
  const std::uint32_t seed = std::random_device()();
  std::mt19937 random(seed);
  // Any bits, then exponents among those of the type.
  for (const bool near : {false, true}) {
    for (int i = 0; i < 1'000'000; ++i) {
      std::uint32_t bits = static_cast<std::uint32_t>(random());
      if (near) bits = (bits & 0x807FFFFFU) | ((115U + bits % 23U) << 23);
      const float value = std::bit_cast<float>(bits);
      if (!std::isfinite(value)) continue;
      const int sign = std::signbit(value) ? kSign : 0;
      ASSERT_EQ(CodeOf(value), sign + NearestFp8Code(value)) << value << ", seed " << seed;
    }
  }
}

TEST(Fp8, RowsAreTheirValuesOneByOne) {
  std::mt19937_64 random(1);
  for (const std::int32_t n : {1, 15, 16, 24, 80, 128, 255}) {
    const auto size = static_cast<std::size_t>(n);
    std::vector<float> row = testing::RandomFloats(size, &random, 100);
    row[size / 2] = kNan;
    std::vector<Fp8> out(size + 1, Fp8{0x55});
    QuantizeKvRow(row.data(), n, out.data());
    for (std::size_t i = 0; i < size; ++i) EXPECT_EQ(out[i].bits, CodeOf(row[i])) << i;
    EXPECT_EQ(out[size].bits, 0x55);
  }
}

}  // namespace
}  // namespace millrace
