// The micro-kernels of kernels/cpu/matmul_tile.h with vpdpbusd: unsigned weights times signed
// activations, four products a lane, signed weights as q + 128. R is a level's registers: what a
// policy of matmul_tile.h has beside the micro-kernels, V (vectors of bytes and words) and F (of
// floats), and the operations below by name. Bounds of the int32 sums: scalar/matmul.cc; q + 128
// adds less than a factor of two: 32 * 255 * 127 = 1.1e6 for Q8_0, 256 * 32 * 241 * 127 = 2.6e8 for
// IQ4_XS. Internal to kernels/cpu.
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
  using F = typename R::F;
  using V = typename R::V;
  using R::kRows;

  template <typename Block, int kColumns>
  static void MultiplySuperBlock(const SuperBlockTile<VnniLevel>& tile, const std::byte* const* x,
                                 std::int64_t x_offset, float* acc) {
    const ActivationQ8x256* blocks[kColumns];
    V isum[kColumns];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      blocks[c] = reinterpret_cast<const ActivationQ8x256*>(x[c] + x_offset);
    }
    DotValues<Block, kColumns>(tile, blocks, isum);
    V msum[kColumns];
    DotMins<kColumns>(tile, blocks, msum);
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      const F dx = R::Set1(blocks[c]->scale);
      const F d = R::Mul(R::LoadFloats(tile.d), dx);
      F sum = R::LoadFloats(acc + c * kRows);
      if constexpr (SuperBlockTraits<Block>::kMinimums) {
        sum = R::Fma(d, R::ToFloats(isum[c]), sum);
        const F dmin = R::Mul(R::LoadFloats(tile.dmin), dx);
        sum = R::NegatedFma(dmin, R::ToFloats(msum[c]), sum);
      } else {
        sum = R::Fma(d, R::ToFloats(R::Sub(isum[c], msum[c])), sum);
      }
      R::StoreFloats(acc + c * kRows, sum);
    }
  }

  template <typename Block, int kColumns>
  static void MultiplyBlocks(const BlocksTile<VnniLevel>& tile, int count,
                             const std::byte* const* x, std::int64_t x_offset, float* acc) {
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
          dot[c] = R::DotBytes(dot[c], w, R::BroadcastDword(blocks[c][b].q + 4 * t));
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
  // isum[c] = sum over sub-blocks of the scale times the sum of products.
  template <typename Block, int kColumns>
  static void DotValues(const SuperBlockTile<VnniLevel>& tile,
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
          dot[c] = R::DotBytes(dot[c], w, R::BroadcastDword(blocks[c]->q + 4 * at));
        }
      }
      const V scale = R::Load(tile.scales[s]);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) isum[c] = R::Add(isum[c], R::Mul(scale, dot[c]));
    }
  }

  template <int kColumns>
  static void DotMins(const SuperBlockTile<VnniLevel>& tile, const ActivationQ8x256* const* blocks,
                      V* msum) {
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) msum[c] = R::Set1(0);
#pragma GCC unroll 8
    for (int pair = 0; pair < 8; ++pair) {
      const V mins = R::Load(tile.mins[pair]);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) {
        msum[c] = R::DotWords(msum[c], mins, R::BroadcastDword(blocks[c]->sums + 2 * pair));
      }
    }
  }
};

}  // namespace
}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_MATMUL_VNNI_BODY_H_
