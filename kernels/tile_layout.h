// The layout in which backends keep quantised weights: tiles of rows whose blocks are interleaved
// by dwords, so that a vector register loads the same four bytes of every row of a tile.
//
// A tile of R rows of U blocks each is, in this order,
//   U times the block's D dwords in the order of DwordPlace: D vectors of R dwords, one a row;
//   U times the block's 16-bit scale, where it lies outside of the dwords: R halves;
//   zeros up to a multiple of kTileAlignment.
// Rows past the matrix's last one are zeros. Tiles of one row are the file's own layout, without
// padding: R = 1 is what float types and the scalar level use. Nothing is lost or rounded.
//
// Leaf header. Thread-safe (pure).
#ifndef MILLRACE_KERNELS_TILE_LAYOUT_H_
#define MILLRACE_KERNELS_TILE_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace millrace {

// A cache line and the widest register: no load of a tile crosses a line.
inline constexpr std::int64_t kTileAlignment = 64;
// Rises with every change of what lies where, so that kept layouts of old are not taken for new.
inline constexpr int kTileLayoutVersion = 2;

// How a type's block falls into dwords and a half.
struct TileLayout {
  std::int32_t dword_offset;  // in the block
  std::int32_t dwords;
  std::int32_t half_offset;  // -1: all of the block is dwords
};

// REQUIRES: a quantised type.
constexpr TileLayout LayoutOf(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
      return {2, 8, 0};
    case DType::kQ4_0:
      return {2, 4, 0};
    case DType::kQ4_1:
      return {0, 5, -1};
    case DType::kQ5_0:
      return {2, 5, 0};
    case DType::kQ5_1:
      return {0, 6, -1};
    case DType::kIQ4_NL:
      return {2, 4, 0};
    case DType::kQ2_K:
      return {0, 21, -1};
    case DType::kQ3_K:
      return {0, 27, 108};
    case DType::kQ4_K:
      return {0, 36, -1};
    case DType::kQ5_K:
      return {0, 44, -1};
    case DType::kQ6_K:
      return {0, 52, 208};
    case DType::kIQ4_XS:
      return {0, 34, -1};
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
  }
  return {0, 0, -1};
}

// Where dword `dword` of a block (of TileLayout's dwords) lies among those of a tile. Q6_K and
// Q3_K, of which kernels read several parts at a time, lie in the order in which they are read, for
// the hardware reads ahead only what is read front to back; the other types lie as in the file.
// Four dwords whose number is a multiple of four stay neighbours, so a quad of them is moved at
// once; the pairs of Q3_K, 8..23, stay neighbours, too.
constexpr std::int32_t DwordPlace(DType dtype, std::int32_t dword) {
  if (dtype == DType::kQ3_K) {  // scales 24..26, then high bits and pairs
    return dword < 24 ? dword + 3 : dword - 24;
  }
  if (dtype == DType::kQ6_K) {
    // Scales 48..51; then for each 16 of the 64 bytes of high pairs, 32..47, these and the nibbles
    // that belong to them, of which 0..15 are the first half's and 16..31 the second's.
    const std::int32_t quad = dword / 4;
    const std::int32_t rest = dword % 4;
    if (quad >= 12) return rest;
    const bool high = quad >= 8;
    const std::int32_t part = high ? quad - 8 : quad / 4 * 2 + quad % 2;
    const std::int32_t in_part = high ? 0 : 1 + quad % 4 / 2;
    return 4 + 12 * part + 4 * in_part + rest;
  }
  return dword;
}

constexpr bool PlacesAreAPermutation() {
  for (const DTypeInfo& info : kDTypes) {
    if (info.block_values == 1) continue;
    const std::int32_t dwords = LayoutOf(info.dtype).dwords;
    std::uint64_t taken = 0;  // a block has at most 52 dwords
    for (std::int32_t i = 0; i < dwords; ++i) {
      const std::int32_t place = DwordPlace(info.dtype, i);
      if (place < 0 || place >= dwords || (taken >> place & 1) != 0) return false;
      if (i % 4 != 0 && place != DwordPlace(info.dtype, i - 1) + 1) return false;
      taken |= std::uint64_t{1} << place;
    }
  }
  return true;
}
static_assert(PlacesAreAPermutation());

constexpr bool LayoutsHoldWholeBlocks() {
  for (const DTypeInfo& info : kDTypes) {
    if (info.block_values == 1) continue;
    const TileLayout layout = LayoutOf(info.dtype);
    if (4 * layout.dwords + (layout.half_offset < 0 ? 0 : 2) != info.block_bytes) return false;
  }
  return true;
}
static_assert(LayoutsHoldWholeBlocks());

// Bytes of a tile of `tile_rows` rows of `k` values.
constexpr std::int64_t TileBytes(DType dtype, std::int64_t k, std::int32_t tile_rows) {
  const std::int64_t bytes = tile_rows * RowBytes(dtype, k);
  if (tile_rows == 1) return bytes;
  return (bytes + kTileAlignment - 1) / kTileAlignment * kTileAlignment;
}

// Bytes of a matrix of `rows` rows.
constexpr std::int64_t TiledBytes(DType dtype, std::int64_t rows, std::int64_t k,
                                  std::int32_t tile_rows) {
  return (rows + tile_rows - 1) / tile_rows * TileBytes(dtype, k, tile_rows);
}

// Lays out `rows` rows of a file, one after the other, as tiles; out is [TiledBytes(..)].
void PackTiles(DType dtype, const std::byte* file_rows, std::int64_t rows, std::int64_t k,
               std::int32_t tile_rows, std::byte* out);

// Row `row` of a matrix in tiles as floats; out is [k].
void DequantizeTiledRow(DType dtype, const std::byte* tiles, std::int64_t row, std::int64_t k,
                        std::int32_t tile_rows, float* out);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_TILE_LAYOUT_H_
