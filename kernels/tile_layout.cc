#include "kernels/tile_layout.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/dequantize.h"

namespace millrace {
namespace {

// Four dwords of one row, and the first, second, .. of four rows.
typedef std::uint32_t Quad __attribute__((vector_size(16)));

Quad LoadQuad(const std::byte* at) {
  Quad quad;
  std::memcpy(&quad, at, sizeof(quad));
  return quad;
}

void StoreQuad(std::byte* at, Quad quad) { std::memcpy(at, &quad, sizeof(quad)); }

// Dwords [0, 4) of four rows, `row_bytes` apart, go to out, a dword of all of them every
// `vector_bytes`.
void Transpose4x4(const std::byte* rows, std::int64_t row_bytes, std::byte* out,
                  std::int64_t vector_bytes) {
  const Quad a = LoadQuad(rows);
  const Quad b = LoadQuad(rows + row_bytes);
  const Quad c = LoadQuad(rows + 2 * row_bytes);
  const Quad d = LoadQuad(rows + 3 * row_bytes);
  const Quad ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const Quad cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Quad ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Quad cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  StoreQuad(out, __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5));
  StoreQuad(out + vector_bytes, __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7));
  StoreQuad(out + 2 * vector_bytes, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
  StoreQuad(out + 3 * vector_bytes, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
}

// The dwords of one block of `count` rows.
void PackDwords(DType dtype, const std::byte* blocks, std::int64_t row_bytes, std::int64_t count,
                std::int32_t tile_rows, std::byte* out) {
  const int dwords = LayoutOf(dtype).dwords;
  const std::int64_t vector_bytes = std::int64_t{4} * tile_rows;
  std::int64_t row = 0;
  for (; row + 4 <= count; row += 4) {
    const std::byte* at = blocks + row * row_bytes;
    int dword = 0;
    for (; dword + 4 <= dwords; dword += 4) {
      Transpose4x4(at + std::int64_t{4} * dword, row_bytes,
                   out + DwordPlace(dtype, dword) * vector_bytes + 4 * row, vector_bytes);
    }
    for (; dword < dwords; ++dword) {
      for (int r = 0; r < 4; ++r) {
        std::memcpy(out + DwordPlace(dtype, dword) * vector_bytes + 4 * (row + r),
                    at + r * row_bytes + std::int64_t{4} * dword, 4);
      }
    }
  }
  for (; row < count; ++row) {
    for (int dword = 0; dword < dwords; ++dword) {
      std::memcpy(out + DwordPlace(dtype, dword) * vector_bytes + 4 * row,
                  blocks + row * row_bytes + std::int64_t{4} * dword, 4);
    }
  }
}

// A tile of `count` rows, the rest of which is already zeros.
void PackTile(DType dtype, const std::byte* rows, std::int64_t count, std::int64_t k,
              std::int32_t tile_rows, std::byte* out) {
  const TileLayout layout = LayoutOf(dtype);
  const std::int64_t row_bytes = RowBytes(dtype, k);
  const std::int64_t units = k / Info(dtype).block_values;
  const std::int64_t unit_bytes = std::int64_t{4} * layout.dwords * tile_rows;
  std::byte* halves = out + units * unit_bytes;
  for (std::int64_t unit = 0; unit < units; ++unit) {
    const std::byte* blocks = rows + unit * Info(dtype).block_bytes;
    PackDwords(dtype, blocks + layout.dword_offset, row_bytes, count, tile_rows,
               out + unit * unit_bytes);
    if (layout.half_offset < 0) continue;
    for (std::int64_t row = 0; row < count; ++row) {
      std::memcpy(halves + (unit * tile_rows + row) * 2,
                  blocks + row * row_bytes + layout.half_offset, 2);
    }
  }
}

}  // namespace

void PackTiles(DType dtype, const std::byte* file_rows, std::int64_t rows, std::int64_t k,
               std::int32_t tile_rows, std::byte* out) {
  const std::int64_t row_bytes = RowBytes(dtype, k);
  if (tile_rows == 1) {
    std::memcpy(out, file_rows, static_cast<std::size_t>(rows * row_bytes));
    return;
  }
  const std::int64_t tile_bytes = TileBytes(dtype, k, tile_rows);
  for (std::int64_t row = 0; row < rows; row += tile_rows, out += tile_bytes) {
    const std::int64_t count = std::min<std::int64_t>(tile_rows, rows - row);
    if (count < tile_rows) std::memset(out, 0, static_cast<std::size_t>(tile_bytes));
    const std::int64_t padding = tile_bytes - tile_rows * row_bytes;
    std::memset(out + tile_bytes - padding, 0, static_cast<std::size_t>(padding));
    PackTile(dtype, file_rows + row * row_bytes, count, k, tile_rows, out);
  }
}

void DequantizeTiledRow(DType dtype, const std::byte* tiles, std::int64_t row, std::int64_t k,
                        std::int32_t tile_rows, float* out) {
  if (tile_rows == 1) return DequantizeRow(dtype, tiles + row * RowBytes(dtype, k), k, out);
  const DTypeInfo& info = Info(dtype);
  const TileLayout layout = LayoutOf(dtype);
  const std::byte* tile = tiles + row / tile_rows * TileBytes(dtype, k, tile_rows);
  const std::int64_t in_tile = row % tile_rows;
  const std::int64_t units = k / info.block_values;
  const std::byte* halves = tile + units * 4 * layout.dwords * tile_rows;
  constexpr std::size_t kLargestBlock = 256;
  std::array<std::byte, kLargestBlock> block;
  for (std::int64_t unit = 0; unit < units; ++unit) {
    for (std::int32_t dword = 0; dword < layout.dwords; ++dword) {
      const std::int64_t place = unit * layout.dwords + DwordPlace(dtype, dword);
      std::memcpy(block.data() + layout.dword_offset + std::ptrdiff_t{4} * dword,
                  tile + (place * tile_rows + in_tile) * 4, 4);
    }
    if (layout.half_offset >= 0) {
      std::memcpy(block.data() + layout.half_offset, halves + (unit * tile_rows + in_tile) * 2, 2);
    }
    DequantizeRow(dtype, block.data(), info.block_values, out + unit * info.block_values);
  }
}

}  // namespace millrace
