// Quantised products by tiles of 8 rows, with vpmaddubsw: unsigned weights times signed
// activations, pairs summed in int16 with saturation, which must never set in: Int16Steps says how
// many pairs are summed in int16 before vpmaddwd brings them to int32. Signed weights are
// multiplied by their magnitudes, their signs given to the activations. Bounds of the int32 sums:
// scalar/matmul.cc.
#include "kernels/cpu/matmul_tile.h"

#include <immintrin.h>

#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/tile_avx2.h"

namespace millrace::cpu::avx2 {
namespace {

// Keeps the compiler from regrouping a chain of integer additions into a tree, which holds all
// terms at once and spills most of the 16 registers.
inline __m256i InOrder(__m256i sum) {
  asm("" : "+x"(sum));
  return sum;
}

// How many vpmaddubsw, each of two products of at most max_value * 127, one int16 lane holds; at
// most `limit`. Powers of two, so that they divide a sub-block.
constexpr int Int16Steps(int max_value, int limit) {
  int steps = 1;
  while (2 * steps <= limit && 2 * steps * 2 * max_value * 127 <= 32767) steps *= 2;
  return steps;
}

struct Level : TileAvx2 {
  static constexpr int kMaxColumns = 4;
  static constexpr int kDirectColumns = 0;
  static constexpr bool kPairedScales = true;
  static constexpr bool kSignedWeights = true;

  template <typename Block, int kColumns>
  static void MultiplySuperBlock(const SuperBlockTile<Level>& tile, const std::byte* const* x,
                                 std::int64_t x_offset, float* acc) {
    using Traits = SuperBlockTraits<Block>;
    constexpr int kSteps = Int16Steps(Traits::kMaxValue, 64 / Traits::kSubBlocks);
    constexpr int kGroupsInSubBlock = 64 / Traits::kSubBlocks / kSteps;
    const ActivationQ8x256* blocks[kColumns];
    __m256i isum[kColumns];
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      blocks[c] = reinterpret_cast<const ActivationQ8x256*>(x[c] + x_offset);
      isum[c] = _mm256_setzero_si256();
    }
    for (int group = 0; group < 64 / kSteps; ++group) {
      __m256i dot[kColumns];
#pragma GCC unroll 8
      for (int t = 0; t < kSteps; ++t) {
        const int at = group * kSteps + t;
        const __m256i w = Load(tile.q[at]);
#pragma GCC unroll 4
        for (int c = 0; c < kColumns; ++c) {
          const __m256i pairs = Multiply<Traits::kSigned>(w, BroadcastDword(blocks[c]->q + 4 * at));
          dot[c] = t == 0 ? pairs : InOrder(_mm256_add_epi16(dot[c], pairs));
        }
      }
      const __m256i scale = Load(tile.scales[group / kGroupsInSubBlock]);
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) {
        isum[c] = _mm256_add_epi32(isum[c], _mm256_madd_epi16(dot[c], scale));
      }
    }
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      const __m256 dx = _mm256_set1_ps(blocks[c]->scale);
      const __m256 d = _mm256_mul_ps(_mm256_load_ps(tile.d), dx);
      __m256 sum = _mm256_load_ps(acc + c * kRows);
      if constexpr (Traits::kMinimums) {
        sum = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(isum[c]), sum);
        const __m256 dmin = _mm256_mul_ps(_mm256_load_ps(tile.dmin), dx);
        sum = _mm256_fnmadd_ps(
            dmin,
            _mm256_cvtepi32_ps(DotMins<SuperBlockTraits<Block>::kSubBlocks>(tile, *blocks[c])),
            sum);
      } else {
        const __m256i above = Traits::kSigned
                                  ? _mm256_setzero_si256()
                                  : DotMins<SuperBlockTraits<Block>::kSubBlocks>(tile, *blocks[c]);
        sum = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(_mm256_sub_epi32(isum[c], above)), sum);
      }
      _mm256_store_ps(acc + c * kRows, sum);
    }
  }

  template <typename Block, int kColumns>
  static void MultiplyBlocks(const BlocksTile<Level>& tile, int count, const std::byte* const* x,
                             std::int64_t x_offset, float* acc) {
    __m256 sum[kColumns];
    const ActivationQ8x32* blocks[kColumns];
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      sum[c] = _mm256_load_ps(acc + c * kRows);
      blocks[c] = reinterpret_cast<const ActivationQ8x32*>(x[c] + x_offset);
    }
    for (int b = 0; b < count; ++b) {
      __m256i isum[kColumns];
      DotBlock<Block, kColumns>(tile.q + 8 * b, blocks, b, isum);
      const __m256 d = _mm256_load_ps(tile.d[b]);
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) {
        const __m256 dx = _mm256_set1_ps(blocks[c][b].scale);
        sum[c] = _mm256_fmadd_ps(_mm256_mul_ps(d, dx), _mm256_cvtepi32_ps(isum[c]), sum[c]);
        if constexpr (BlockTraits<Block>::kMinimums) {
          const __m256 x_sum = _mm256_set1_ps(static_cast<float>(blocks[c][b].sum));
          sum[c] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_load_ps(tile.m[b]), dx), x_sum, sum[c]);
        }
      }
    }
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) _mm256_store_ps(acc + c * kRows, sum[c]);
  }

 private:
  static __m256i Load(const void* at) { return _mm256_load_si256(static_cast<const __m256i*>(at)); }

  template <int kSubBlocks>
  static __m256i DotMins(const SuperBlockTile<Level>& tile, const ActivationQ8x256& x) {
    __m256i msum = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int pair = 0; pair < kSubBlocks / 2; ++pair) {
      const __m256i sums = BroadcastDword(Sums<kSubBlocks>(x, pair));
      msum = _mm256_add_epi32(msum, _mm256_madd_epi16(Load(tile.mins[pair]), sums));
    }
    return msum;
  }

  // isum[c] = sum of the 32 products of each row with block b of column c.
  template <typename Block, int kColumns>
  static void DotBlock(const std::uint8_t (*q)[4 * kRows], const ActivationQ8x32* const* blocks,
                       int b, __m256i* isum) {
    using Traits = BlockTraits<Block>;
    constexpr int kSteps = Int16Steps(Traits::kMaxValue, 8);
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (int group = 0; group < 8 / kSteps; ++group) {
      __m256i dot[kColumns];
#pragma GCC unroll 8
      for (int t = 0; t < kSteps; ++t) {
        const int at = group * kSteps + t;
        const __m256i w = Load(q[at]);
#pragma GCC unroll 4
        for (int c = 0; c < kColumns; ++c) {
          const __m256i pairs =
              Multiply<Traits::kSigned>(w, BroadcastDword(blocks[c][b].q + 4 * at));
          dot[c] = t == 0 ? pairs : InOrder(_mm256_add_epi16(dot[c], pairs));
        }
      }
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) {
        const __m256i sums = _mm256_madd_epi16(dot[c], ones);
        isum[c] = group == 0 ? sums : InOrder(_mm256_add_epi32(isum[c], sums));
      }
    }
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      if constexpr (Traits::kOffset != 0) {
        const __m256i above = _mm256_set1_epi32(Traits::kOffset * blocks[c][b].sum);
        isum[c] = _mm256_sub_epi32(isum[c], above);
      }
    }
  }

  // Sums of two products each in int16.
  template <bool kSigned>
  static __m256i Multiply(__m256i w, __m256i x) {
    if constexpr (kSigned) return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_maddubs_epi16(w, x);
  }
};

}  // namespace

constinit const std::array<MatmulVariant, kQuantisedTypes> kQuantisedMatmuls =
    TileMatmuls<Level>(Isa::kAvx2);

}  // namespace millrace::cpu::avx2
