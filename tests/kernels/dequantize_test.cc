#include "kernels/dequantize.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace millrace {
namespace {

struct Golden {
  std::vector<std::byte> blocks;
  std::vector<float> values;
};

// The records of make_dequantize_golden.py by type. The test runs in the root of the repository.
std::map<DType, Golden> LoadGolden() {
  std::ifstream file("tests/kernels/dequantize_golden.bin", std::ios::binary);
  EXPECT_TRUE(file.is_open());
  std::map<DType, Golden> records;
  std::uint32_t header[3];
  while (file.read(reinterpret_cast<char*>(header), sizeof(header))) {
    Golden golden;
    golden.blocks.resize(header[1]);
    golden.values.resize(header[2]);
    file.read(reinterpret_cast<char*>(golden.blocks.data()), header[1]);
    file.read(reinterpret_cast<char*>(golden.values.data()),
              static_cast<std::streamsize>(header[2] * sizeof(float)));
    EXPECT_TRUE(file.good());
    const std::optional<DType> dtype = DTypeFromGgml(header[0]);
    EXPECT_TRUE(dtype.has_value()) << header[0];
    if (dtype.has_value()) records[*dtype] = std::move(golden);
  }
  return records;
}

bool SameBits(float a, float b) {
  // numpy may or may not quiet a NaN; all that counts is that it is one.
  if (std::isnan(a) && std::isnan(b)) return true;
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

TEST(DequantizeRow, GivesThePythonPackagesBitsForEveryType) {
  const std::map<DType, Golden> records = LoadGolden();
  ASSERT_EQ(records.size(), kDTypes.size());
  for (const auto& [dtype, golden] : records) {
    SCOPED_TRACE(std::string(Info(dtype).name));
    const auto k = static_cast<std::int64_t>(golden.values.size());
    ASSERT_EQ(RowBytes(dtype, k), static_cast<std::int64_t>(golden.blocks.size()));
    std::vector<float> out(golden.values.size(), std::numeric_limits<float>::quiet_NaN());
    DequantizeRow(dtype, golden.blocks.data(), k, out.data());
    std::size_t nonzero = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      ASSERT_TRUE(SameBits(out[i], golden.values[i]))
          << i << ": " << out[i] << ", expected " << golden.values[i];
      nonzero += out[i] != 0.0F;
    }
    EXPECT_GT(nonzero, out.size() / 2);
  }
}

TEST(DequantizeRow, WritesNothingForNoValues) {
  const std::byte nothing{};
  float untouched = 3.0F;
  for (const DTypeInfo& info : kDTypes) DequantizeRow(info.dtype, &nothing, 0, &untouched);
  EXPECT_EQ(untouched, 3.0F);
}

constexpr HalfBits kHalfInfinity = 0x7C00;

TEST(Half, ComesBackFromFloatForEveryPattern) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<HalfBits>(bits);
    const float value = HalfToFloat(half);
    if ((half & 0x7FFF) > kHalfInfinity) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_EQ(FloatToHalf(value), half | 0x0200) << bits;  // quiet, the payload kept
    } else {
      ASSERT_EQ(FloatToHalf(value), half) << bits;
    }
  }
}

TEST(Half, HasTheValueThatItsFieldsSay) {
  EXPECT_EQ(HalfToFloat(0x3C00), 1.0F);
  EXPECT_EQ(HalfToFloat(0xC000), -2.0F);
  EXPECT_EQ(HalfToFloat(0x7BFF), 65504.0F);
  EXPECT_EQ(HalfToFloat(0x0001), 0x1p-24F);
  EXPECT_EQ(HalfToFloat(0x83FF), -0x1.ff8p-15F);
  EXPECT_TRUE(std::signbit(HalfToFloat(0x8000)));
  EXPECT_EQ(HalfToFloat(0xFC00), -std::numeric_limits<float>::infinity());
}

// Half way between neighbours, and one float to each side: the middle of two halves is a float.
TEST(Half, RoundsToTheNearestAndTiesToEven) {
  for (HalfBits low = 0; low < 0x7BFF; ++low) {
    const float middle = 0.5F * (HalfToFloat(low) + HalfToFloat(low + 1));
    const HalfBits even = low % 2 == 0 ? low : low + 1;
    ASSERT_EQ(FloatToHalf(middle), even) << low;
    ASSERT_EQ(FloatToHalf(-middle), even | 0x8000) << low;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 0.0F)), low) << low;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 1e9F)), low + 1) << low;
  }
}

TEST(Half, OverflowsToInfinityFromHalfWayToTheNextPower) {
  EXPECT_EQ(FloatToHalf(65519.996F), 0x7BFF);
  EXPECT_EQ(FloatToHalf(65520.0F), kHalfInfinity);
  EXPECT_EQ(FloatToHalf(-3e38F), kHalfInfinity | 0x8000);
  EXPECT_EQ(FloatToHalf(std::numeric_limits<float>::denorm_min()), 0);
}

TEST(Bfloat16, IsTheUpperHalfOfAFloat) {
  EXPECT_EQ(Bfloat16ToFloat(0x3F80), 1.0F);
  EXPECT_EQ(Bfloat16ToFloat(0xFF7F), -0x1.fep127F);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(Bfloat16ToFloat(0x0001)), 0x00010000U);
}

}  // namespace
}  // namespace millrace
