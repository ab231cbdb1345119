#include "kernels/cuda/weight_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/dequantize.h"
#include "tests/kernels/guarded_buffer.h"
#include "tests/kernels/random_weights.h"

namespace millrace::cuda {
namespace {

using ::millrace::testing::GuardedBuffer;

class WeightLayoutTest : public ::testing::TestWithParam<DTypeInfo> {};

INSTANTIATE_TEST_SUITE_P(Types, WeightLayoutTest, ::testing::ValuesIn(kDTypes),
                         [](const ::testing::TestParamInfo<DTypeInfo>& info) {
                           return std::string(info.param.name);
                         });

std::vector<std::byte> RandomFile(DType dtype, std::int64_t rows, std::int64_t k) {
  std::vector<std::byte> file(static_cast<std::size_t>(rows * RowBytes(dtype, k)));
  std::mt19937 rng(static_cast<std::uint32_t>(rows * 1000 + k));  // the shape is the seed
  testing::FillWeights(dtype, file.data(), rows * k, rng);
  return file;
}

constexpr std::int64_t kRowCounts[] = {1, 7, 8, 9, 15, 16, 17, 37};

std::vector<std::int64_t> Lengths(const DTypeInfo& info) {
  std::vector<std::int64_t> lengths = {256, 512, 768};
  if (info.block_values <= 32) lengths.insert(lengths.end(), {32, 96, 544});
  if (info.block_values == 1) lengths.insert(lengths.end(), {1, 15, 17, 65, 127, 129});
  return lengths;
}

TEST_P(WeightLayoutTest, GivesBackEveryRowBitForBit) {
  const DType dtype = GetParam().dtype;
  for (const std::int64_t rows : kRowCounts) {
    for (const std::int64_t k : Lengths(GetParam())) {
      const std::vector<std::byte> file = RandomFile(dtype, rows, k);
      GuardedBuffer laid_out(static_cast<std::size_t>(LaidOutBytes(dtype, rows, k)));
      std::memset(laid_out.data(), 0xA5, static_cast<std::size_t>(LaidOutBytes(dtype, rows, k)));
      LayOutWeights(dtype, file.data(), rows, k, laid_out.data());
      std::vector<float> wanted(static_cast<std::size_t>(k));
      std::vector<float> got(wanted.size());
      for (std::int64_t row = 0; row < rows; ++row) {
        DequantizeRow(dtype, file.data() + row * RowBytes(dtype, k), k, wanted.data());
        DequantizeLaidOutRow(dtype, laid_out.data(), row, k, got.data());
        ASSERT_EQ(std::memcmp(wanted.data(), got.data(), wanted.size() * sizeof(float)), 0)
            << "row " << row << " of " << rows << ", k " << k;
      }
    }
  }
}

// What a loader does: a slab at a time.
TEST_P(WeightLayoutTest, APartAtATimeGivesTheSameBytes) {
  const DType dtype = GetParam().dtype;
  constexpr std::int64_t kRows = 75;
  constexpr std::int64_t kLength = 512;
  const std::vector<std::byte> file = RandomFile(dtype, kRows, kLength);
  std::vector<std::byte> whole(static_cast<std::size_t>(LaidOutBytes(dtype, kRows, kLength)));
  std::vector<std::byte> parts(whole.size(), std::byte{0x5A});
  LayOutWeights(dtype, file.data(), kRows, kLength, whole.data());
  for (std::int64_t row = 0; row < kRows; row += 2 * kTileRows) {
    LayOutWeights(dtype, file.data() + row * RowBytes(dtype, kLength),
                  std::min<std::int64_t>(2 * kTileRows, kRows - row), kLength,
                  parts.data() + LaidOutBytes(dtype, row, kLength));
  }
  EXPECT_EQ(whole, parts);
}

// Padding must be zeros: the products multiply it.
TEST_P(WeightLayoutTest, WhatPadsIsZero) {
  const DType dtype = GetParam().dtype;
  const std::int64_t k = GetParam().block_values == 256 ? 256 : GetParam().block_values;
  const std::vector<std::byte> file(static_cast<std::size_t>(3 * RowBytes(dtype, k)),
                                    std::byte{0x11});
  std::vector<std::byte> out(static_cast<std::size_t>(LaidOutBytes(dtype, 3, k)), std::byte{0x77});
  LayOutWeights(dtype, file.data(), 3, k, out.data());
  EXPECT_EQ(std::count(out.begin(), out.end(), std::byte{0x77}), 0);
  EXPECT_GT(std::count(out.begin(), out.end(), std::byte{0}), 0);
}

TEST_P(WeightLayoutTest, EveryPartIsAlignedForLoadsOf16Bytes) {
  const WeightForm form = FormOf(GetParam().dtype);
  EXPECT_EQ(LaidOutBytes(GetParam().dtype, 5, 768) % 32, 0);
  if (!IsQuantised(form)) return;
  const UnitLayout unit = UnitLayoutOf(form);
  for (const int offset : {unit.high(), unit.scales(), unit.halves(), unit.bytes()}) {
    EXPECT_EQ(offset % 16, 0);
  }
}

// The types that are common cost no more memory than in the file.
TEST(WeightLayout, CommonTypesKeepTheirSize) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                            DType::kQ4_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    EXPECT_EQ(LaidOutBytes(dtype, 2048, 768), 2048 * RowBytes(dtype, 768)) << Info(dtype).name;
  }
}

}  // namespace
}  // namespace millrace::cuda
