// Products by tiles: the blocks of V::kRows weight rows are unpacked once into bytes that lie row
// by row within a register (4 consecutive k of each row), then multiplied with all columns. No sum
// runs across lanes, so a lane is an output row. Internal to kernels/cpu/avx2 and avx512.
//
// V is a level's policy, a type of an anonymous namespace, so that every template here has internal
// linkage and its level's flags:
//   kRows; kMaxColumns: columns of a micro-kernel, whose accumulators fit the registers;
//   kPairedScales, kSignedWeights: what the micro-kernels take; U, I, F: vectors of uint32, int32
//   and float; LoadQuads, WidenHalves; and the micro-kernels MultiplySuperBlock<Block, kColumns>
//   and MultiplyBlocks<Block, kColumns>, which add a tile's products to kColumns rows of
//   accumulators.
#ifndef MILLRACE_KERNELS_CPU_MATMUL_TILE_H_
#define MILLRACE_KERNELS_CPU_MATMUL_TILE_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/matmul_rows.h"
#include "kernels/quant_blocks.h"

namespace millrace::cpu {
namespace {

// 256 values of V::kRows rows of a K-quant. q[t] holds values 4t..4t+3 of each row.
template <typename V>
struct SuperBlockTile {
  alignas(64) std::uint8_t q[64][4 * V::kRows];
  // One dword a row: the scale of a sub-block as int32, or twice as int16 (V::kPairedScales).
  alignas(64) std::uint32_t scales[16][V::kRows];
  // One dword a row: int16 factors of the activation sums 2p and 2p + 1.
  alignas(64) std::uint32_t mins[8][V::kRows];
  alignas(64) float d[V::kRows];
  alignas(64) float dmin[V::kRows];
};

// Up to 8 blocks of 32 values of V::kRows rows.
template <typename V>
struct BlocksTile {
  alignas(64) std::uint8_t q[64][4 * V::kRows];
  alignas(64) float d[8][V::kRows];
  alignas(64) float m[8][V::kRows];
};

template <typename Vector, typename T>
inline void StoreVector(T* at, Vector v) {
  __builtin_memcpy(at, &v, sizeof(v));
}

template <typename Vector, typename T>
inline Vector LoadVector(const T* at) {
  Vector v;
  __builtin_memcpy(&v, at, sizeof(v));
  return v;
}

// Byte `b` of each dword, as a scale of the tile. The signed form shifts arithmetically.
template <typename V>
inline typename V::U PlaceScale(typename V::U bytes, int b) {
  const typename V::U scale = (bytes >> (8 * b)) & 0xFFU;
  return V::kPairedScales ? scale | (scale << 16) : scale;
}

template <typename V>
inline typename V::I SignedByte(typename V::U bytes, int b) {
  return reinterpret_cast<typename V::I>(bytes << (24 - 8 * b)) >> 24;
}

template <typename V>
inline typename V::U PlaceSignedScale(typename V::U bytes, int b) {
  const auto scale = reinterpret_cast<typename V::U>(SignedByte<V>(bytes, b));
  return V::kPairedScales ? (scale & 0xFFFFU) | (scale << 16) : scale;
}

// d, dmin and the 6-bit scales and minimums: the first 16 bytes of Q4_K and Q5_K.
template <typename V>
inline void UnpackHeader(const std::byte* const* rows, std::int64_t offset,
                         SuperBlockTile<V>& tile) {
  using U = typename V::U;
  U header[4];
  V::LoadQuads(rows, offset, header);
  StoreVector(tile.d, V::WidenHalves(header[0] & 0xFFFFU));
  StoreVector(tile.dmin, V::WidenHalves(header[0] >> 16));
  const U scales[2] = {header[1] & 0x3F3F3F3FU,
                       (header[3] & 0x0F0F0F0FU) | ((header[1] >> 2) & 0x30303030U)};
  const U mins[2] = {header[2] & 0x3F3F3F3FU,
                     ((header[3] >> 4) & 0x0F0F0F0FU) | ((header[2] >> 2) & 0x30303030U)};
  for (int s = 0; s < 8; ++s) {
    StoreVector(tile.scales[s], PlaceScale<V>(scales[s / 4], s % 4));
    const U min = (mins[s / 4] >> (8 * (s % 4))) & 0xFFU;
    StoreVector(tile.mins[s], min | (min << 16));  // the minimum of 32 values is that of both 16s
  }
}

template <typename V>
inline void UnpackTile(const BlockQ4_K*, const std::byte* const* rows, std::int64_t offset,
                       SuperBlockTile<V>& tile) {
  using U = typename V::U;
  UnpackHeader<V>(rows, offset, tile);
  for (int part = 0; part < 8; ++part) {  // 16 bytes: half of a pair of sub-blocks
    U q[4];
    V::LoadQuads(rows, offset + 16 + 16 * part, q);
    const int at = 16 * (part / 2) + 4 * (part % 2);
    for (int i = 0; i < 4; ++i) {
      StoreVector(tile.q[at + i], q[i] & 0x0F0F0F0FU);
      StoreVector(tile.q[at + 8 + i], (q[i] >> 4) & 0x0F0F0F0FU);
    }
  }
}

template <typename V>
inline void UnpackTile(const BlockQ5_K*, const std::byte* const* rows, std::int64_t offset,
                       SuperBlockTile<V>& tile) {
  using U = typename V::U;
  UnpackHeader<V>(rows, offset, tile);
  U high[8];
  V::LoadQuads(rows, offset + 16, high);
  V::LoadQuads(rows, offset + 32, high + 4);
  for (int part = 0; part < 8; ++part) {
    U q[4];
    V::LoadQuads(rows, offset + 48 + 16 * part, q);
    const int at = 16 * (part / 2) + 4 * (part % 2);
    const int s = part / 2 * 2;
    for (int i = 0; i < 4; ++i) {
      const U bits = high[4 * (part % 2) + i] >> s;
      StoreVector(tile.q[at + i], (q[i] & 0x0F0F0F0FU) | ((bits << 4) & 0x10101010U));
      StoreVector(tile.q[at + 8 + i], ((q[i] >> 4) & 0x0F0F0F0FU) | ((bits << 3) & 0x10101010U));
    }
  }
}

template <typename V>
inline void UnpackTile(const BlockQ6_K*, const std::byte* const* rows, std::int64_t offset,
                       SuperBlockTile<V>& tile) {
  using U = typename V::U;
  for (int part = 0; part < 4; ++part) {  // 16 of the 64 bytes of high pairs; two make a half
    U high[4];
    U low[4];
    U next[4];
    const int half = part / 2;
    V::LoadQuads(rows, offset + 128 + 16 * part, high);
    V::LoadQuads(rows, offset + 64 * half + 16 * (part % 2), low);
    V::LoadQuads(rows, offset + 64 * half + 32 + 16 * (part % 2), next);
    const int at = 32 * half + 4 * (part % 2);
    for (int i = 0; i < 4; ++i) {
      const U pairs = high[i];
      StoreVector(tile.q[at + i], (low[i] & 0x0F0F0F0FU) | ((pairs << 4) & 0x30303030U));
      StoreVector(tile.q[at + 8 + i], (next[i] & 0x0F0F0F0FU) | ((pairs << 2) & 0x30303030U));
      StoreVector(tile.q[at + 16 + i], ((low[i] >> 4) & 0x0F0F0F0FU) | (pairs & 0x30303030U));
      StoreVector(tile.q[at + 24 + i],
                  ((next[i] >> 4) & 0x0F0F0F0FU) | ((pairs >> 2) & 0x30303030U));
    }
  }
  U scales[4];
  V::LoadQuads(rows, offset + 192, scales);
  for (int s = 0; s < 16; ++s) {
    StoreVector(tile.scales[s], PlaceSignedScale<V>(scales[s / 4], s % 4));
  }
  for (int pair = 0; pair < 8; ++pair) {  // the offset 32 of q, as a minimum of 32 * scale
    const U bytes = scales[pair / 2];
    const auto even = reinterpret_cast<U>(SignedByte<V>(bytes, pair % 2 * 2) * 32);
    const auto odd = reinterpret_cast<U>(SignedByte<V>(bytes, pair % 2 * 2 + 1) * 32);
    StoreVector(tile.mins[pair], (even & 0xFFFFU) | (odd << 16));
  }
  U tail[4];
  V::LoadQuads(rows, offset + 194, tail);  // the last dword ends with d
  StoreVector(tile.d, V::WidenHalves(tail[3] >> 16));
}

template <typename V>
inline typename V::F LoadHalves(const std::byte* const* rows, std::int64_t offset) {
  alignas(64) std::uint32_t bits[V::kRows];
  for (int r = 0; r < V::kRows; ++r) {
    HalfBits half;
    __builtin_memcpy(&half, rows[r] + offset, sizeof(half));
    bits[r] = half;
  }
  return V::WidenHalves(LoadVector<typename V::U>(bits));
}

template <typename V>
inline void UnpackNibbleBlock(const std::byte* const* rows, std::int64_t offset, int block,
                              BlocksTile<V>& tile) {
  typename V::U q[4];
  V::LoadQuads(rows, offset, q);
  for (int i = 0; i < 4; ++i) {
    StoreVector(tile.q[8 * block + i], q[i] & 0x0F0F0F0FU);
    StoreVector(tile.q[8 * block + 4 + i], (q[i] >> 4) & 0x0F0F0F0FU);
  }
}

template <typename V>
inline void UnpackBlock(const BlockQ4_0*, const std::byte* const* rows, std::int64_t offset,
                        int block, BlocksTile<V>& tile) {
  StoreVector(tile.d[block], LoadHalves<V>(rows, offset));
  UnpackNibbleBlock<V>(rows, offset + 2, block, tile);
}

template <typename V>
inline void UnpackBlock(const BlockQ4_1*, const std::byte* const* rows, std::int64_t offset,
                        int block, BlocksTile<V>& tile) {
  StoreVector(tile.d[block], LoadHalves<V>(rows, offset));
  StoreVector(tile.m[block], LoadHalves<V>(rows, offset + 2));
  UnpackNibbleBlock<V>(rows, offset + 4, block, tile);
}

template <typename V>
inline void UnpackBlock(const BlockQ8_0*, const std::byte* const* rows, std::int64_t offset,
                        int block, BlocksTile<V>& tile) {
  StoreVector(tile.d[block], LoadHalves<V>(rows, offset));
  for (int part = 0; part < 2; ++part) {
    typename V::U q[4];
    V::LoadQuads(rows, offset + 2 + 16 * part, q);
    // A level that multiplies unsigned weights gets q + 128 and takes 128 * sum off again.
    for (int i = 0; i < 4; ++i) {
      StoreVector(tile.q[8 * block + 4 * part + i], V::kSignedWeights ? q[i] : q[i] ^ 0x80808080U);
    }
  }
}

// What the micro-kernels must know of a type.
template <typename Block>
struct BlockTraits;
template <>
struct BlockTraits<BlockQ4_K> {
  static constexpr int kSubBlocks = 8, kMaxValue = 15;
};
template <>
struct BlockTraits<BlockQ5_K> {
  static constexpr int kSubBlocks = 8, kMaxValue = 31;
};
template <>
struct BlockTraits<BlockQ6_K> {
  static constexpr int kSubBlocks = 16, kMaxValue = 63;
};

// Columns whose accumulators and activations are kept close while a tile is in the first-level
// cache: 128 columns of 256 values are 37 KB of activations and 8 KB of accumulators.
constexpr int kColumnBlock = 128;

// Calls f with the number of columns as a constant: groups of V::kMaxColumns, then the rest.
template <int kColumns, typename Function>
inline void CallWithColumns(int columns, int at, const Function& f) {
  if constexpr (kColumns > 0) {
    if (columns == kColumns) return f.template operator()<kColumns>(at);
    CallWithColumns<kColumns - 1>(columns, at, f);
  }
}

template <int kGroup, typename Function>
inline void ForColumnGroups(int columns, const Function& f) {
  int at = 0;
  for (; at + kGroup <= columns; at += kGroup) f.template operator()<kGroup>(at);
  CallWithColumns<kGroup - 1>(columns - at, at, f);
}

// Asks for the memory that the next tile will read, a share at each step so that the requests do
// not exceed what a core can have under way. Rows are short (a KB or two), so the hardware's own
// prefetcher keeps losing the thread; a tile's rows together are one stream. A prefetch past the
// end of the weights is harmless.
template <typename V>
class NextTile {
 public:
  // `tile` is the first row of this tile; it is read in `units`, each of them for `columns`.
  NextTile(const std::byte* tile, std::int64_t w_row_bytes, std::int64_t units, int columns)
      : at_(reinterpret_cast<std::uintptr_t>(tile) + Bytes(w_row_bytes)),
        end_(at_ + Bytes(w_row_bytes)) {
    const std::int64_t steps = units * (2 + columns / V::kMaxColumns);
    share_ = steps > 0 ? Bytes(w_row_bytes) / static_cast<std::uintptr_t>(steps) + 1 : 0;
  }

  void Prefetch() {
    const std::uintptr_t until = at_ + share_ < end_ ? at_ + share_ : end_;
    for (; at_ < until; at_ += 64) __builtin_prefetch(reinterpret_cast<const void*>(at_), 0, 3);
  }

 private:
  static std::uintptr_t Bytes(std::int64_t w_row_bytes) {
    return static_cast<std::uintptr_t>(V::kRows * w_row_bytes);
  }

  std::uintptr_t at_;
  std::uintptr_t end_;
  std::uintptr_t share_;
};

// A K-quant: one tile a super-block.
template <typename V, typename Block>
struct SuperBlockWalk {
  static constexpr int kGroup = V::kMaxColumns;

  static void Rows(const std::byte* const* rows, const std::byte* const* x, int columns,
                   const MatmulParams& p, float* acc) {
    SuperBlockTile<V> tile;
    NextTile<V> next(rows[0], p.w_row_bytes, p.k / 256, columns);
    for (std::int64_t b = 0; b < p.k / 256; ++b) {
      const std::int64_t offset = b * static_cast<std::int64_t>(sizeof(Block));
      next.Prefetch();
      UnpackTile<V>(static_cast<const Block*>(nullptr), rows, offset, tile);
      next.Prefetch();
      const std::int64_t x_offset = b * static_cast<std::int64_t>(sizeof(ActivationQ8x256));
      ForColumnGroups<kGroup>(columns, [&]<int kColumns>(int at) {
        if constexpr (kColumns == kGroup) next.Prefetch();
        V::template MultiplySuperBlock<Block, kColumns>(tile, x + at, x_offset,
                                                        acc + at * V::kRows);
      });
    }
  }
};

// A type of 32 values: one tile for up to 8 blocks.
template <typename V, typename Block>
struct BlocksWalk {
  static constexpr int kGroup = V::kMaxColumns;

  static void Rows(const std::byte* const* rows, const std::byte* const* x, int columns,
                   const MatmulParams& p, float* acc) {
    BlocksTile<V> tile;
    NextTile<V> next(rows[0], p.w_row_bytes, (p.k / 32 + 7) / 8, columns);
    for (std::int64_t b = 0; b < p.k / 32; b += 8) {
      const int count = static_cast<int>(p.k / 32 - b < 8 ? p.k / 32 - b : 8);
      next.Prefetch();
      for (int i = 0; i < count; ++i) {
        UnpackBlock<V>(static_cast<const Block*>(nullptr), rows,
                       (b + i) * static_cast<std::int64_t>(sizeof(Block)), i, tile);
      }
      next.Prefetch();
      const std::int64_t x_offset = b * static_cast<std::int64_t>(sizeof(ActivationQ8x32));
      ForColumnGroups<kGroup>(columns, [&]<int kColumns>(int at) {
        if constexpr (kColumns == kGroup) next.Prefetch();
        V::template MultiplyBlocks<Block, kColumns>(tile, count, x + at, x_offset,
                                                    acc + at * V::kRows);
      });
    }
  }
};

template <typename V, typename Walk>
void MatmulTiles(const MatmulParams& p) {
  alignas(64) float acc[kColumnBlock * V::kRows];
  const std::byte* x[kColumnBlock];
  for (std::int64_t j0 = 0; j0 < p.m; j0 += kColumnBlock) {
    const int columns = static_cast<int>(p.m - j0 < kColumnBlock ? p.m - j0 : kColumnBlock);
    for (int c = 0; c < columns; ++c) x[c] = ActivationRow(p, j0 + c);
    for (std::int64_t i0 = p.n_begin; i0 < p.n_end; i0 += V::kRows) {
      // A ragged last tile repeats its last row in the lanes that nobody stores.
      const int count = static_cast<int>(p.n_end - i0 < V::kRows ? p.n_end - i0 : V::kRows);
      const std::byte* rows[V::kRows];
      for (int r = 0; r < V::kRows; ++r) rows[r] = WeightRow(p, i0 + (r < count ? r : count - 1));
      __builtin_memset(acc, 0, sizeof(float) * static_cast<std::size_t>(columns * V::kRows));
      Walk::Rows(rows, x, columns, p, acc);
      for (int c = 0; c < columns; ++c) {
        __builtin_memcpy(OutputRow(p, j0 + c) + i0, acc + c * V::kRows,
                         sizeof(float) * static_cast<std::size_t>(count));
      }
    }
  }
}

}  // namespace
}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_MATMUL_TILE_H_
