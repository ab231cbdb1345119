// Quantised products by tiles of 8 rows, with vpmaddubsw: unsigned weights times signed
// activations, pairs summed in int16 with saturation, which must never set in. So many pairs are
// summed in int16 before vpmaddwd applies the scale in int32:
//   Q4 eight: 8 * 2 * 15 * 127 = 30 480;  Q5 four: 4 * 2 * 31 * 127 = 31 496;
//   Q6 two: 2 * 2 * 63 * 127 = 32 004;    Q8_0 one, on absolute values: 2 * 128 * 127 = 32 512.
// Bounds of the int32 sums: scalar/matmul.cc.
#include <immintrin.h>

#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/matmul_tile.h"

namespace millrace::cpu::avx2 {
namespace {

inline __m256i BroadcastDword(const void* at) {
  std::int32_t bits;
  __builtin_memcpy(&bits, at, sizeof(bits));
  return _mm256_set1_epi32(bits);
}

// Keeps the compiler from regrouping a chain of integer additions into a tree, which holds all
// terms at once and spills most of the 16 registers.
inline __m256i InOrder(__m256i sum) {
  asm("" : "+x"(sum));
  return sum;
}

// How many vpmaddubsw one int16 lane holds.
constexpr int Int16Steps(int max_value) {
  return max_value == 15 ? 8 : (max_value == 31 ? 4 : (max_value == 63 ? 2 : 1));
}

struct Level {
  static constexpr int kRows = 8;
  static constexpr int kMaxColumns = 4;
  static constexpr bool kPairedScales = true;
  static constexpr bool kSignedWeights = true;
  typedef std::uint32_t U __attribute__((vector_size(32)));
  typedef std::int32_t I __attribute__((vector_size(32)));
  using F = __m256;

  // 16 bytes from each row: out[i] gets the i-th dword of every row.
  static void LoadQuads(const std::byte* const* rows, std::int64_t offset, U* out) {
    __m256i lanes[4];  // lane l of lanes[i] is row 4l + i
    for (int i = 0; i < 4; ++i) {
      lanes[i] = _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(rows[4 + i] + offset),
                                     reinterpret_cast<const __m128i*>(rows[i] + offset));
    }
    const __m256i t0 = _mm256_unpacklo_epi32(lanes[0], lanes[1]);
    const __m256i t1 = _mm256_unpacklo_epi32(lanes[2], lanes[3]);
    const __m256i t2 = _mm256_unpackhi_epi32(lanes[0], lanes[1]);
    const __m256i t3 = _mm256_unpackhi_epi32(lanes[2], lanes[3]);
    out[0] = reinterpret_cast<U>(_mm256_unpacklo_epi64(t0, t1));
    out[1] = reinterpret_cast<U>(_mm256_unpackhi_epi64(t0, t1));
    out[2] = reinterpret_cast<U>(_mm256_unpacklo_epi64(t2, t3));
    out[3] = reinterpret_cast<U>(_mm256_unpackhi_epi64(t2, t3));
  }

  static F WidenHalves(U bits) {
    const __m256i wide = reinterpret_cast<__m256i>(bits);
    const __m256i packed = _mm256_packus_epi32(wide, wide);  // halves doubled in each lane
    return _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
  }

  template <typename Block, int kColumns>
  static void MultiplySuperBlock(const SuperBlockTile<Level>& tile, const std::byte* const* x,
                                 std::int64_t x_offset, float* acc) {
    constexpr int kSubBlocks = BlockTraits<Block>::kSubBlocks;
    constexpr int kSteps = Int16Steps(BlockTraits<Block>::kMaxValue);
    constexpr int kGroupsInSubBlock = 64 / kSubBlocks / kSteps;
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
          const __m256i pairs = _mm256_maddubs_epi16(w, BroadcastDword(blocks[c]->q + 4 * at));
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
      const __m256i msum = DotMins(tile, *blocks[c]);
      const __m256 dx = _mm256_set1_ps(blocks[c]->scale);
      const __m256 d = _mm256_mul_ps(_mm256_load_ps(tile.d), dx);
      __m256 sum = _mm256_load_ps(acc + c * kRows);
      if constexpr (kSubBlocks == 16) {
        sum = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(_mm256_sub_epi32(isum[c], msum)), sum);
      } else {
        sum = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(isum[c]), sum);
        const __m256 dmin = _mm256_mul_ps(_mm256_load_ps(tile.dmin), dx);
        sum = _mm256_fnmadd_ps(dmin, _mm256_cvtepi32_ps(msum), sum);
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
        if constexpr (sizeof(Block) == sizeof(BlockQ4_1)) {
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

  static __m256i DotMins(const SuperBlockTile<Level>& tile, const ActivationQ8x256& x) {
    __m256i msum = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int pair = 0; pair < 8; ++pair) {
      const __m256i sums = BroadcastDword(x.sums + 2 * pair);
      msum = _mm256_add_epi32(msum, _mm256_madd_epi16(Load(tile.mins[pair]), sums));
    }
    return msum;
  }

  // isum[c] = sum of the 32 products of each row with block b of column c.
  template <typename Block, int kColumns>
  static void DotBlock(const std::uint8_t (*q)[4 * kRows], const ActivationQ8x32* const* blocks,
                       int b, __m256i* isum) {
    constexpr bool kSigned = sizeof(Block) == sizeof(BlockQ8_0);
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i dot[kColumns];
#pragma GCC unroll 8
    for (int t = 0; t < 8; ++t) {
      const __m256i w = Load(q[t]);
      const __m256i magnitude = kSigned ? _mm256_abs_epi8(w) : w;
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) {
        const __m256i values = BroadcastDword(blocks[c][b].q + 4 * t);
        const __m256i pairs =
            _mm256_maddubs_epi16(magnitude, kSigned ? _mm256_sign_epi8(values, w) : values);
        // Four bits sum in int16 over the whole block, eight bits need int32 at once.
        const __m256i term = kSigned ? _mm256_madd_epi16(pairs, ones) : pairs;
        if (t == 0) {
          dot[c] = term;
        } else {
          dot[c] =
              InOrder(kSigned ? _mm256_add_epi32(dot[c], term) : _mm256_add_epi16(dot[c], term));
        }
      }
    }
    constexpr int kOffset = sizeof(Block) == sizeof(BlockQ4_0) ? 8 : 0;
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      isum[c] = kSigned ? dot[c] : _mm256_madd_epi16(dot[c], ones);
      if (kOffset != 0) {
        isum[c] = _mm256_sub_epi32(isum[c], _mm256_set1_epi32(kOffset * blocks[c][b].sum));
      }
    }
  }
};

}  // namespace

void MatmulQ8_0(const MatmulParams& p) { MatmulTiles<Level, BlocksWalk<Level, BlockQ8_0>>(p); }
void MatmulQ4_0(const MatmulParams& p) { MatmulTiles<Level, BlocksWalk<Level, BlockQ4_0>>(p); }
void MatmulQ4_1(const MatmulParams& p) { MatmulTiles<Level, BlocksWalk<Level, BlockQ4_1>>(p); }
void MatmulQ4_K(const MatmulParams& p) { MatmulTiles<Level, SuperBlockWalk<Level, BlockQ4_K>>(p); }
void MatmulQ5_K(const MatmulParams& p) { MatmulTiles<Level, SuperBlockWalk<Level, BlockQ5_K>>(p); }
void MatmulQ6_K(const MatmulParams& p) { MatmulTiles<Level, SuperBlockWalk<Level, BlockQ6_K>>(p); }

}  // namespace millrace::cpu::avx2
