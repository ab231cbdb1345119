// The micro-kernels of kernels/cpu/matmul_tile.h with vpdpbusd: unsigned weights times signed
// activations, four products a lane, signed weights as q + 128. R is a level's registers: what a
// policy of matmul_tile.h has beside the micro-kernels, V (vectors of bytes and words) and F (of
// floats), and the operations below by name; DotBytes and DotWords get the address of a dword of
// activations, which is the same for all rows. Bounds of the int32 sums: scalar/matmul.cc; q + 128
// adds less than a factor of two: 32 * 255 * 127 = 1.1e6 for Q8_0, 256 * 32 * 241 * 127 = 2.6e8 for
// IQ4_XS. Micro-kernels are functions of their own, with all that they call inlined: left to the
// compiler that changes with every edit nearby, and a sum that is kept in memory halves the speed.
// Internal to kernels/cpu.
#ifndef MILLRACE_KERNELS_CPU_MATMUL_VNNI_BODY_H_
#define MILLRACE_KERNELS_CPU_MATMUL_VNNI_BODY_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/matmul_tile.h"

namespace millrace::cpu {
namespace {

template <typename R>
struct VnniLevel : R {
  static constexpr bool kPairedScales = false;
  static constexpr bool kSignedWeights = false;
  static constexpr int kDirectColumns = R::kMaxColumns;
  using F = typename R::F;
  using V = typename R::V;
  using R::kRows;

  template <typename Block, int kColumns>
  [[gnu::noinline, gnu::flatten]] static void MultiplySuperBlock(
      const SuperBlockTile<VnniLevel>& tile, const std::byte* const* x, std::int64_t x_offset,
      float* acc) {
    const ActivationQ8x256* blocks[kColumns];
    V isum[kColumns];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      blocks[c] = reinterpret_cast<const ActivationQ8x256*>(x[c] + x_offset);
    }
    DotValues<Block, kColumns>(tile, blocks, isum);
    F sum[kColumns];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) sum[c] = R::LoadFloats(acc + c * kRows);
    AddSuperBlock<Block, kColumns>(tile, blocks, isum, sum);
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) R::StoreFloats(acc + c * kRows, sum[c]);
  }

  // acc = the products of all `num_blocks` super-blocks of a tile. Asks for what comes next
  // meanwhile, with addresses that are constants but for the block's: counting lines took a quarter
  // of the instructions.
  template <typename Block, int kColumns>
  [[gnu::noinline, gnu::flatten]] static void MultiplyStored(
      const TileReader<VnniLevel, Block>& reader, std::int64_t num_blocks,
      const std::byte* const* x, float* acc) {
    F sum[kColumns];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) sum[c] = R::Set1(0.0F);
    for (std::int64_t b = 0; b < num_blocks; ++b) {
      SuperBlockScales<VnniLevel> scales;
      DotQuads<Block, kColumns> dots(&scales, &reader, b);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) {
        dots.blocks[c] = reinterpret_cast<const ActivationQ8x256*>(x[c]) + b;
      }
      UnpackTile<VnniLevel>(static_cast<const Block*>(nullptr), reader.At(b), scales, dots);
      AddSuperBlock<Block, kColumns>(scales, dots.blocks, dots.isum, sum);
    }
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) R::StoreFloats(acc + c * kRows, sum[c]);
  }

  // The same for blocks of 32 values.
  template <typename Block, int kColumns>
  [[gnu::noinline, gnu::flatten]] static void MultiplyStoredBlocks(
      const TileReader<VnniLevel, Block>& reader, std::int64_t num_blocks,
      const std::byte* const* x, float* acc) {
    using Traits = BlockTraits<Block>;
    F sum[kColumns];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) sum[c] = R::Set1(0.0F);
    for (std::int64_t b = 0; b < num_blocks; ++b) {
      reader.template Ask<0, 1>(b);
      DotBlock<Block, kColumns> dots;
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) {
        dots.Begin(c, reinterpret_cast<const ActivationQ8x32*>(x[c]) + b);
      }
      const BlockScales<VnniLevel> scales =
          UnpackBlock<VnniLevel>(static_cast<const Block*>(nullptr), reader.At(b), dots);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) {
        const F dx = R::Set1(dots.blocks[c]->scale);
        sum[c] = R::Fma(R::Mul(scales.d, dx), R::ToFloats(dots.dot[c]), sum[c]);
        if constexpr (Traits::kMinimums) {
          const F x_sum = R::Set1(static_cast<float>(dots.blocks[c]->sum));
          sum[c] = R::Fma(R::Mul(scales.m, dx), x_sum, sum[c]);
        }
      }
    }
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) R::StoreFloats(acc + c * kRows, sum[c]);
  }

  template <typename Block, int kColumns>
  [[gnu::noinline, gnu::flatten]] static void MultiplyBlocks(const BlocksTile<VnniLevel>& tile,
                                                             int count, const std::byte* const* x,
                                                             std::int64_t x_offset, float* acc) {
    using Traits = BlockTraits<Block>;
    constexpr int kOffset = Traits::kSigned ? 128 : Traits::kOffset;
    F sum[kColumns];
    const ActivationQ8x32* blocks[kColumns];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      sum[c] = R::LoadFloats(acc + c * kRows);
      blocks[c] = reinterpret_cast<const ActivationQ8x32*>(x[c] + x_offset);
    }
    for (int b = 0; b < count; ++b) {
      V dot[kColumns];
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) dot[c] = R::Set1(-kOffset * blocks[c][b].sum);
#pragma GCC unroll 8
      for (int t = 0; t < 8; ++t) {
        const V w = R::Load(tile.q[8 * b + t]);
#pragma GCC unroll 8
        for (int c = 0; c < kColumns; ++c) {
          dot[c] = R::DotBytes(dot[c], w, blocks[c][b].q + 4 * t);
        }
      }
      const F d = R::LoadFloats(tile.d[b]);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) {
        const F dx = R::Set1(blocks[c][b].scale);
        sum[c] = R::Fma(R::Mul(d, dx), R::ToFloats(dot[c]), sum[c]);
        if constexpr (Traits::kMinimums) {
          const F x_sum = R::Set1(static_cast<float>(blocks[c][b].sum));
          sum[c] = R::Fma(R::Mul(R::LoadFloats(tile.m[b]), dx), x_sum, sum[c]);
        }
      }
    }
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) R::StoreFloats(acc + c * kRows, sum[c]);
  }

 private:
  // A sink that multiplies the quads of a super-block as they come: isum[c] gets what DotValues
  // makes of a stored tile.
  template <typename Block, int kColumns>
  struct DotQuads {
    static constexpr int kQuadsOfSubBlock = 16 / SuperBlockTraits<Block>::kSubBlocks;
    // One column takes weights as fast as memory gives them. Where the hardware reads ahead by
    // itself within a page of 4 KiB, to ask for every line takes places for requests that it needs.
    // With more columns what the hardware asks for comes too late.
    static constexpr int kLinesApart = kColumns == 1 ? 4 : 1;

    DotQuads(const SuperBlockScales<VnniLevel>* scales_in,
             const TileReader<VnniLevel, Block>* reader_in, std::int64_t block_in)
        : scales(scales_in), reader(reader_in), block(block_in) {
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) isum[c] = R::Set1(0);
    }

    template <int kQuad>
    [[gnu::always_inline]] void Put(const typename R::U (&quad)[4]) {
      reader->template Ask<kQuad, 16, kLinesApart>(block);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) {
        if constexpr (kQuad % kQuadsOfSubBlock == 0) dot[c] = R::Set1(0);
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const V w = reinterpret_cast<V>(quad[i]);
#pragma GCC unroll 8
        for (int c = 0; c < kColumns; ++c) {
          dot[c] = R::DotBytes(dot[c], w, blocks[c]->q + 16 * kQuad + 4 * i);
        }
      }
      if constexpr ((kQuad + 1) % kQuadsOfSubBlock == 0) {
        const V scale = R::Load(scales->scales[kQuad / kQuadsOfSubBlock]);
#pragma GCC unroll 8
        for (int c = 0; c < kColumns; ++c) isum[c] = R::Add(isum[c], R::Mul(scale, dot[c]));
      }
    }

    const SuperBlockScales<VnniLevel>* scales;
    const TileReader<VnniLevel, Block>* reader;
    std::int64_t block;
    const ActivationQ8x256* blocks[kColumns];
    V dot[kColumns];
    V isum[kColumns];
  };

  // The same for a block of 32 values.
  template <typename Block, int kColumns>
  struct DotBlock {
    static constexpr int kOffset = BlockTraits<Block>::kSigned ? 128 : BlockTraits<Block>::kOffset;

    void Begin(int c, const ActivationQ8x32* block) {
      blocks[c] = block;
      dot[c] = R::Set1(-kOffset * block->sum);
    }

    template <int kQuad>
    [[gnu::always_inline]] void Put(const typename R::U (&quad)[4]) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const V w = reinterpret_cast<V>(quad[i]);
#pragma GCC unroll 8
        for (int c = 0; c < kColumns; ++c) {
          dot[c] = R::DotBytes(dot[c], w, blocks[c]->q + 16 * kQuad + 4 * i);
        }
      }
    }

    const ActivationQ8x32* blocks[kColumns];
    V dot[kColumns];
  };

  // sum[c] gets a super-block's products, of which isum has the integers.
  template <typename Block, int kColumns>
  [[gnu::always_inline]] static void AddSuperBlock(const SuperBlockScales<VnniLevel>& scales,
                                                   const ActivationQ8x256* const* blocks,
                                                   const V* isum, F* sum) {
    V msum[kColumns];
    DotMins<SuperBlockTraits<Block>::kSubBlocks, kColumns>(scales, blocks, msum);
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      const F dx = R::Set1(blocks[c]->scale);
      const F d = R::Mul(R::LoadFloats(scales.d), dx);
      if constexpr (SuperBlockTraits<Block>::kMinimums) {
        sum[c] = R::Fma(d, R::ToFloats(isum[c]), sum[c]);
        const F dmin = R::Mul(R::LoadFloats(scales.dmin), dx);
        sum[c] = R::NegatedFma(dmin, R::ToFloats(msum[c]), sum[c]);
      } else {
        sum[c] = R::Fma(d, R::ToFloats(R::Sub(isum[c], msum[c])), sum[c]);
      }
    }
  }

  // isum[c] = sum over sub-blocks of the scale times the sum of products.
  template <typename Block, int kColumns>
  [[gnu::always_inline]] static void DotValues(const SuperBlockTile<VnniLevel>& tile,
                                               const ActivationQ8x256* const* blocks, V* isum) {
    constexpr int kSubBlocks = SuperBlockTraits<Block>::kSubBlocks;
    constexpr int kSteps = 64 / kSubBlocks;
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) isum[c] = R::Set1(0);
    for (int s = 0; s < kSubBlocks; ++s) {
      V dot[kColumns];
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) dot[c] = R::Set1(0);
#pragma GCC unroll 8
      for (int t = 0; t < kSteps; ++t) {
        const int at = s * kSteps + t;
        const V w = R::Load(tile.q[at]);
#pragma GCC unroll 8
        for (int c = 0; c < kColumns; ++c) {
          dot[c] = R::DotBytes(dot[c], w, blocks[c]->q + 4 * at);
        }
      }
      const V scale = R::Load(tile.scales[s]);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) isum[c] = R::Add(isum[c], R::Mul(scale, dot[c]));
    }
  }

  template <int kSubBlocks, int kColumns>
  static void DotMins(const SuperBlockScales<VnniLevel>& tile,
                      const ActivationQ8x256* const* blocks, V* msum) {
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) msum[c] = R::Set1(0);
#pragma GCC unroll 8
    for (int pair = 0; pair < kSubBlocks / 2; ++pair) {
      const V mins = R::Load(tile.mins[pair]);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) {
        msum[c] = R::DotWords(msum[c], mins, Sums<kSubBlocks>(*blocks[c], pair));
      }
    }
  }
};

}  // namespace
}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_MATMUL_VNNI_BODY_H_
