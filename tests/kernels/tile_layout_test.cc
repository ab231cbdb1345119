#include "kernels/tile_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/dequantize.h"
#include "tests/kernels/random_weights.h"

namespace millrace {
namespace {

struct Case {
  DType dtype;
  std::int32_t tile_rows;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const DTypeInfo& info : kDTypes) {
    for (const std::int32_t rows : {1, 8, 16}) {
      if (rows == 1 || info.block_values > 1) cases.push_back({info.dtype, rows});
    }
  }
  return cases;
}

class TileLayoutTest : public ::testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Types, TileLayoutTest, ::testing::ValuesIn(Cases()),
                         [](const ::testing::TestParamInfo<Case>& info) {
                           return std::string(Info(info.param.dtype).name) + "_" +
                                  std::to_string(info.param.tile_rows);
                         });

// A matrix of a file and its tiles, in memory that was not zero before.
struct Tiled {
  Tiled(const Case& c, std::int64_t rows, std::int64_t k)
      : file(static_cast<std::size_t>(rows * RowBytes(c.dtype, k))),
        tiles(static_cast<std::size_t>(TiledBytes(c.dtype, rows, k, c.tile_rows)),
              std::byte{0xA5}) {
    std::mt19937 rng(static_cast<std::uint32_t>(rows * 1000 + k));
    testing::FillWeights(c.dtype, file.data(), rows * k, rng);
    PackTiles(c.dtype, file.data(), rows, k, c.tile_rows, tiles.data());
  }
  std::vector<std::byte> file;
  std::vector<std::byte> tiles;
};

constexpr std::int64_t kRowCounts[] = {1, 3, 7, 8, 9, 15, 16, 17, 37};

TEST_P(TileLayoutTest, GivesBackEveryRowBitForBit) {
  const auto [dtype, tile_rows] = GetParam();
  for (const std::int64_t rows : kRowCounts) {
    for (const std::int64_t k : {256, 512, 768}) {
      const Tiled tiled(GetParam(), rows, k);
      std::vector<float> wanted(static_cast<std::size_t>(k));
      std::vector<float> got(wanted.size());
      for (std::int64_t row = 0; row < rows; ++row) {
        DequantizeRow(dtype, tiled.file.data() + row * RowBytes(dtype, k), k, wanted.data());
        DequantizeTiledRow(dtype, tiled.tiles.data(), row, k, tile_rows, got.data());
        ASSERT_EQ(std::memcmp(wanted.data(), got.data(), wanted.size() * sizeof(float)), 0)
            << "row " << row << " of " << rows << ", k " << k;
      }
    }
  }
}

// The bytes of the file are there, each once, and nothing else but zeros.
TEST_P(TileLayoutTest, HoldsTheFilesBytesAndZeros) {
  for (const std::int64_t rows : kRowCounts) {
    Tiled tiled(GetParam(), rows, 256);
    ASSERT_GE(tiled.tiles.size(), tiled.file.size());
    tiled.file.resize(tiled.tiles.size());  // with as many zeros
    std::sort(tiled.file.begin(), tiled.file.end());
    std::sort(tiled.tiles.begin(), tiled.tiles.end());
    EXPECT_EQ(tiled.file, tiled.tiles) << rows << " rows";
  }
}

TEST_P(TileLayoutTest, TilesBeginOnACacheLine) {
  const auto [dtype, tile_rows] = GetParam();
  if (tile_rows == 1) return;
  for (const std::int64_t k : {256, 768, 2048}) {
    EXPECT_EQ(TileBytes(dtype, k, tile_rows) % kTileAlignment, 0) << k;
    EXPECT_LT(TileBytes(dtype, k, tile_rows), tile_rows * RowBytes(dtype, k) + kTileAlignment);
  }
}

}  // namespace
}  // namespace millrace
