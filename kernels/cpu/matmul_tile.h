// Products by tiles of V::kRows weight rows (kernels/tile_layout.h): a block of each row is
// unpacked (kernels/cpu/tile_unpack.h) into the first-level cache and then multiplied with all
// columns; for few columns it is multiplied in registers, as it is unpacked. No sum runs across
// lanes, so a lane is an output row. Internal to kernels/cpu.
//
// V is a level's policy, a type of an anonymous namespace, so that every template here has internal
// linkage and its level's flags:
//   kRows; kMaxColumns: columns of a micro-kernel, whose accumulators fit the registers;
//   kPairedScales, kSignedWeights: what the micro-kernels take; U, I, F: vectors of uint32, int32
//   and float; LoadHalves, WidenHalves, LookUp; and the micro-kernels MultiplySuperBlock<Block,
//   kColumns> and MultiplyBlocks<Block, kColumns>, which add a tile's products to kColumns rows of
//   accumulators. Where kDirectColumns > 0, up to so many columns are multiplied as they are
//   unpacked, by MultiplyStored<Block, kColumns> and MultiplyStoredBlocks<Block, kColumns>, which
//   read through a TileReader and have it Ask for what comes next.
#ifndef MILLRACE_KERNELS_CPU_MATMUL_TILE_H_
#define MILLRACE_KERNELS_CPU_MATMUL_TILE_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/matmul_rows.h"
#include "kernels/cpu/tile_unpack.h"
#include "kernels/quant_blocks.h"

namespace millrace::cpu {
namespace {

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

// The same for groups of kGroup, kGroup / 2, ..., 1: fewer kernels, for those that are long.
template <int kGroup, typename Function>
inline void ForHalvedGroups(int columns, int at, const Function& f) {
  for (; at + kGroup <= columns; at += kGroup) f.template operator()<kGroup>(at);
  if constexpr (kGroup > 1) ForHalvedGroups<kGroup / 2>(columns, at, f);
}

// Two tiles and the activations do not fit a first level of 32 KiB, so the next tile is asked for
// into the second, and only what is read soon into the first. A prefetch past the end of the
// weights is harmless.
inline constexpr int kIntoSecondLevel = 2;
inline constexpr int kIntoFirstLevel = 3;
inline constexpr int kLine = 64;

// Asks for the memory that the next tile will read, a share at each step so that the requests do
// not exceed what a core can have under way.
class NextTile {
 public:
  // The next tile is the `bytes` at `next`, or unknown (null); this one is read in `steps`.
  NextTile(const std::byte* next, std::int64_t bytes, std::int64_t steps)
      : at_(reinterpret_cast<std::uintptr_t>(next)),
        end_(next == nullptr ? at_ : at_ + static_cast<std::uintptr_t>(bytes)),
        share_(static_cast<std::uintptr_t>(steps > 0 ? bytes / steps + 1 : 0)) {}

  void Prefetch() {
    const std::uintptr_t until = at_ + share_ < end_ ? at_ + share_ : end_;
    for (; at_ < until; at_ += kLine) {
      __builtin_prefetch(reinterpret_cast<const void*>(at_), 0, kIntoSecondLevel);
    }
  }

 private:
  std::uintptr_t at_;
  std::uintptr_t end_;
  std::uintptr_t share_;
};

// Makes the compiler read a tile from where it was stored. It would keep the values in registers
// for the kernels that it inlines, of which there are too many, and store them a second time.
template <typename T>
inline void KeepInMemory(T* tile) {
  asm volatile("" : "+m"(*tile) : : "memory");
}

// Of a tile that is read in `units`, each of them for `columns`.
template <typename V>
inline NextTile NextTileOf(const std::byte* next, std::int64_t w_tile_bytes, std::int64_t units,
                           int columns) {
  return NextTile(next, w_tile_bytes, units * (2 + columns / V::kMaxColumns));
}

// The blocks of a tile, one after the other.
template <typename V, typename Block>
class StoredTile {
 public:
  StoredTile(const std::byte* tile, std::int64_t blocks)
      : dwords_(tile), halves_(tile + blocks * kDwordBytes) {}

  StoredBlock<V> At(std::int64_t block) const {
    return {dwords_ + block * kDwordBytes, halves_ + block * 2 * V::kRows};
  }
  // Asks for the part kPart of kParts of a block, one line in kApart, into the second-level
  // cache.
  template <int kPart, int kParts, int kApart>
  [[gnu::always_inline]] void Prefetch(std::int64_t block) const {
    PrefetchLines<kPart, kParts, kApart, kIntoSecondLevel>(Address(block));
    if constexpr (kPart == 0 && sizeof(Block) % 4 != 0) {
      __builtin_prefetch(halves_ + block * 2 * V::kRows, 0, kIntoSecondLevel);
    }
  }
  // Asks for what is read kNear bytes after that part, into the first level.
  template <int kPart, int kParts>
  [[gnu::always_inline]] void PrefetchNear(std::int64_t block) const {
    PrefetchLines<kPart, kParts, 1, kIntoFirstLevel>(Address(block) + kNear);
  }

 private:
  // Bytes; to read so many takes longer than the second level takes to answer.
  static constexpr int kNear = 1024;

  // An integer, since what is asked for may lie past the end of the weights.
  std::uintptr_t Address(std::int64_t block) const {
    return reinterpret_cast<std::uintptr_t>(dwords_ + block * kDwordBytes);
  }

  template <int kPart, int kParts, int kApart, int kLevel>
  [[gnu::always_inline]] static void PrefetchLines(std::uintptr_t at) {
#pragma GCC unroll 64
    for (int line = kPart * kLines / kParts; line < (kPart + 1) * kLines / kParts; ++line) {
      if (line % kApart != 0) continue;
      __builtin_prefetch(reinterpret_cast<const void*>(at + std::uintptr_t{kLine} * line), 0,
                         kLevel);
    }
  }

  static constexpr std::int64_t kDwordBytes =
      static_cast<std::int64_t>(sizeof(Block)) / 4 * 4 * V::kRows;
  static constexpr int kLines = static_cast<int>((kDwordBytes + kLine - 1) / kLine);

  const std::byte* dwords_;
  const std::byte* halves_;
};

// The tile that a micro-kernel reads, and what it asks for meanwhile: the same place of the next
// tile, or this one's where there is none.
template <typename V, typename Block>
class TileReader {
 public:
  TileReader(const std::byte* tile, const std::byte* next, std::int64_t blocks, bool by_software)
      : tile_(tile, blocks), next_(next == nullptr ? tile : next, blocks), software_(by_software) {}

  StoredBlock<V> At(std::int64_t block) const { return tile_.At(block); }

  // Asks for the part kPart of kParts of a block: for every line, or for one in kApart where the
  // hardware asks for the others.
  template <int kPart, int kParts, int kApart = 1>
  [[gnu::always_inline]] void Ask(std::int64_t block) const {
    if (software_) {
      // Requests to memory take the places that loads from the second level need too, so what is
      // read soon is asked for as well.
      next_.template Prefetch<kPart, kParts, 1>(block);
      tile_.template PrefetchNear<kPart, kParts>(block);
    } else {
      next_.template Prefetch<kPart, kParts, kApart>(block);
    }
  }

 private:
  StoredTile<V, Block> tile_;
  StoredTile<V, Block> next_;
  bool software_;
};

// A K-quant: one tile a super-block.
template <typename V, typename Block>
struct SuperBlockWalk {
  static constexpr int kGroup = V::kMaxColumns;
  // Sub-blocks of 16 values keep more registers alive: four columns at a time.
  static constexpr int kDirectGroup =
      SuperBlockTraits<Block>::kSubBlocks == 16 && V::kDirectColumns > 4 ? 4 : V::kDirectColumns;

  static void Tile(const std::byte* weights, const std::byte* const* x, int columns,
                   const MatmulParams& p, const std::byte* next_tile, float* acc) {
    if constexpr (V::kDirectColumns > 0) {
      if (columns <= V::kDirectColumns) {
        const TileReader<V, Block> reader(weights, next_tile, p.k / 256, p.reads_ahead_by_software);
        ForHalvedGroups<kDirectGroup>(columns, 0, [&]<int kColumns>(int at) {
          V::template MultiplyStored<Block, kColumns>(reader, p.k / 256, x + at,
                                                      acc + at * V::kRows);
        });
        return;
      }
    }
    __builtin_memset(acc, 0, sizeof(float) * static_cast<std::size_t>(columns * V::kRows));
    const StoredTile<V, Block> stored(weights, p.k / 256);
    SuperBlockTile<V> tile;
    NextTile next = NextTileOf<V>(next_tile, p.w_tile_bytes, p.k / 256, columns);
    for (std::int64_t b = 0; b < p.k / 256; ++b) {
      next.Prefetch();
      StoreQuads<V> sink{tile.q};
      UnpackTile<V>(static_cast<const Block*>(nullptr), stored.At(b), tile, sink);
      KeepInMemory(&tile);
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

  static void Tile(const std::byte* weights, const std::byte* const* x, int columns,
                   const MatmulParams& p, const std::byte* next_tile, float* acc) {
    if constexpr (V::kDirectColumns > 0) {
      if (columns <= V::kDirectColumns) {
        const TileReader<V, Block> reader(weights, next_tile, p.k / 32, p.reads_ahead_by_software);
        ForHalvedGroups<V::kDirectColumns>(columns, 0, [&]<int kColumns>(int at) {
          V::template MultiplyStoredBlocks<Block, kColumns>(reader, p.k / 32, x + at,
                                                            acc + at * V::kRows);
        });
        return;
      }
    }
    __builtin_memset(acc, 0, sizeof(float) * static_cast<std::size_t>(columns * V::kRows));
    const StoredTile<V, Block> stored(weights, p.k / 32);
    BlocksTile<V> tile;
    NextTile next = NextTileOf<V>(next_tile, p.w_tile_bytes, (p.k / 32 + 7) / 8, columns);
    for (std::int64_t b = 0; b < p.k / 32; b += 8) {
      const int count = static_cast<int>(p.k / 32 - b < 8 ? p.k / 32 - b : 8);
      next.Prefetch();
      for (int i = 0; i < count; ++i) {
        StoreQuads<V> sink{tile.q + 8 * i};
        const BlockScales<V> scales =
            UnpackBlock<V>(static_cast<const Block*>(nullptr), stored.At(b + i), sink);
        StoreVector(tile.d[i], scales.d);
        if constexpr (BlockTraits<Block>::kMinimums) StoreVector(tile.m[i], scales.m);
      }
      KeepInMemory(&tile);
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

// Writes `count` of each column's kRows sums at `acc` to its row of the output. The size of a whole
// tile is a constant: a call of memcpy took a quarter of the time of a super-block's products.
template <int kRows>
inline void StoreTile(const MatmulParams& p, std::int64_t first_column, std::int64_t first_row,
                      int columns, int count, const float* acc) {
  for (int c = 0; c < columns; ++c) {
    float* const y = OutputRow(p, first_column + c) + first_row;
    const float* const sums = acc + c * kRows;
    if (count == kRows) {
      __builtin_memcpy(y, sums, sizeof(float) * kRows);
    } else {
      __builtin_memcpy(y, sums, sizeof(float) * static_cast<std::size_t>(count));
    }
  }
}

template <typename V, typename Walk>
void MatmulTiles(const MatmulParams& p) {
  // Columns whose accumulators and activations are kept close while a tile is in the first-level
  // cache: 128 columns of 256 values are 37 KB of activations and 8 KB of accumulators.
  constexpr int kColumnBlock = 128;
  alignas(64) float acc[kColumnBlock * V::kRows];
  const std::byte* x[kColumnBlock];
  for (std::int64_t j0 = 0; j0 < p.m; j0 += kColumnBlock) {
    const int columns = static_cast<int>(p.m - j0 < kColumnBlock ? p.m - j0 : kColumnBlock);
    for (int c = 0; c < columns; ++c) x[c] = ActivationRow(p, j0 + c);
    for (std::int64_t i0 = p.n_begin; i0 < p.n_end; i0 += V::kRows) {
      const int count = static_cast<int>(p.n_end - i0 < V::kRows ? p.n_end - i0 : V::kRows);
      const std::byte* weights = p.w + i0 / V::kRows * p.w_tile_bytes;
      const bool last = i0 + V::kRows >= p.n_end;
      Walk::Tile(weights, x, columns, p, last ? p.next_w : weights + p.w_tile_bytes, acc);
      StoreTile<V::kRows>(p, j0, i0, columns, count, acc);
    }
  }
}

// A level's table of products.
template <typename V>
constexpr std::array<MatmulVariant, kQuantisedTypes> TileMatmuls(Isa isa) {
  const auto blocks = [isa]<typename Block>(DType dtype, const Block*) {
    return MatmulVariant{isa, dtype, V::kRows, MatmulTiles<V, BlocksWalk<V, Block>>};
  };
  const auto super_blocks = [isa]<typename Block>(DType dtype, const Block*) {
    return MatmulVariant{isa, dtype, V::kRows, MatmulTiles<V, SuperBlockWalk<V, Block>>};
  };
  return {blocks(DType::kQ8_0, static_cast<const BlockQ8_0*>(nullptr)),
          blocks(DType::kQ4_0, static_cast<const BlockQ4_0*>(nullptr)),
          blocks(DType::kQ4_1, static_cast<const BlockQ4_1*>(nullptr)),
          blocks(DType::kQ5_0, static_cast<const BlockQ5_0*>(nullptr)),
          blocks(DType::kQ5_1, static_cast<const BlockQ5_1*>(nullptr)),
          blocks(DType::kIQ4_NL, static_cast<const BlockIQ4_NL*>(nullptr)),
          super_blocks(DType::kQ2_K, static_cast<const BlockQ2_K*>(nullptr)),
          super_blocks(DType::kQ3_K, static_cast<const BlockQ3_K*>(nullptr)),
          super_blocks(DType::kQ4_K, static_cast<const BlockQ4_K*>(nullptr)),
          super_blocks(DType::kQ5_K, static_cast<const BlockQ5_K*>(nullptr)),
          super_blocks(DType::kQ6_K, static_cast<const BlockQ6_K*>(nullptr)),
          super_blocks(DType::kIQ4_XS, static_cast<const BlockIQ4_XS*>(nullptr))};
}

}  // namespace
}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_MATMUL_TILE_H_
