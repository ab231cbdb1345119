// Quantised products by tiles of 16 rows, with vpdpbusd: unsigned weights times signed activations,
// four products a lane. Bounds of the int32 sums: scalar/matmul.cc (with Q8_0 at q + 128:
// 32*255*127 = 1.1e6).
#include "kernels/cpu/matmul_tile.h"

#include <immintrin.h>

#include "kernels/cpu/matmul_kernels.h"

namespace millrace::cpu::avx512 {
namespace {

inline __m512i BroadcastDword(const void* at) {
  std::int32_t bits;
  __builtin_memcpy(&bits, at, sizeof(bits));
  return _mm512_set1_epi32(bits);
}

// What Q8_0's and Q4_0's bytes are above the value they stand for.
template <typename Block>
constexpr int kOffset = 0;
template <>
constexpr int kOffset<BlockQ8_0> = 128;
template <>
constexpr int kOffset<BlockQ4_0> = 8;

struct Level {
  static constexpr int kRows = 16;
  static constexpr int kMaxColumns = 8;
  static constexpr bool kPairedScales = false;
  static constexpr bool kSignedWeights = false;
  typedef std::uint32_t U __attribute__((vector_size(64)));
  typedef std::int32_t I __attribute__((vector_size(64)));
  using F = __m512;

  // 16 bytes from each row: out[i] gets the i-th dword of every row.
  static void LoadQuads(const std::byte* const* rows, std::int64_t offset, U* out) {
    __m512i lanes[4];  // lane l of lanes[i] is row 4l + i
    for (int i = 0; i < 4; ++i) {
      const auto row = [&](int l) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[4 * l + i] + offset));
      };
      const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(row(0)), row(1), 1);
      const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(row(2)), row(3), 1);
      lanes[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
    const __m512i t0 = _mm512_unpacklo_epi32(lanes[0], lanes[1]);
    const __m512i t1 = _mm512_unpacklo_epi32(lanes[2], lanes[3]);
    const __m512i t2 = _mm512_unpackhi_epi32(lanes[0], lanes[1]);
    const __m512i t3 = _mm512_unpackhi_epi32(lanes[2], lanes[3]);
    out[0] = reinterpret_cast<U>(_mm512_unpacklo_epi64(t0, t1));
    out[1] = reinterpret_cast<U>(_mm512_unpackhi_epi64(t0, t1));
    out[2] = reinterpret_cast<U>(_mm512_unpacklo_epi64(t2, t3));
    out[3] = reinterpret_cast<U>(_mm512_unpackhi_epi64(t2, t3));
  }

  static F WidenHalves(U bits) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(bits)));
  }

  template <typename Block, int kColumns>
  static void MultiplySuperBlock(const SuperBlockTile<Level>& tile, const std::byte* const* x,
                                 std::int64_t x_offset, float* acc) {
    constexpr int kSubBlocks = BlockTraits<Block>::kSubBlocks;
    constexpr int kSteps = 64 / kSubBlocks;
    const ActivationQ8x256* blocks[kColumns];
    __m512i isum[kColumns];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      blocks[c] = reinterpret_cast<const ActivationQ8x256*>(x[c] + x_offset);
      isum[c] = _mm512_setzero_si512();
    }
    for (int s = 0; s < kSubBlocks; ++s) {
      __m512i dot[kColumns];
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) dot[c] = _mm512_setzero_si512();
#pragma GCC unroll 8
      for (int t = 0; t < kSteps; ++t) {
        const __m512i w = _mm512_load_si512(tile.q[s * kSteps + t]);
#pragma GCC unroll 8
        for (int c = 0; c < kColumns; ++c) {
          dot[c] =
              _mm512_dpbusd_epi32(dot[c], w, BroadcastDword(blocks[c]->q + 4 * (s * kSteps + t)));
        }
      }
      const __m512i scale = _mm512_load_si512(tile.scales[s]);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) {
        isum[c] = _mm512_add_epi32(isum[c], _mm512_mullo_epi32(scale, dot[c]));
      }
    }
    __m512i msum[kColumns];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) msum[c] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int pair = 0; pair < 8; ++pair) {
      const __m512i mins = _mm512_load_si512(tile.mins[pair]);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) {
        msum[c] = _mm512_dpwssd_epi32(msum[c], mins, BroadcastDword(blocks[c]->sums + 2 * pair));
      }
    }
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      const __m512 dx = _mm512_set1_ps(blocks[c]->scale);
      const __m512 d = _mm512_mul_ps(_mm512_load_ps(tile.d), dx);
      __m512 sum = _mm512_load_ps(acc + c * kRows);
      if constexpr (kSubBlocks == 16) {
        sum = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(_mm512_sub_epi32(isum[c], msum[c])), sum);
      } else {
        sum = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(isum[c]), sum);
        const __m512 dmin = _mm512_mul_ps(_mm512_load_ps(tile.dmin), dx);
        sum = _mm512_fnmadd_ps(dmin, _mm512_cvtepi32_ps(msum[c]), sum);
      }
      _mm512_store_ps(acc + c * kRows, sum);
    }
  }

  template <typename Block, int kColumns>
  static void MultiplyBlocks(const BlocksTile<Level>& tile, int count, const std::byte* const* x,
                             std::int64_t x_offset, float* acc) {
    __m512 sum[kColumns];
    const ActivationQ8x32* blocks[kColumns];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      sum[c] = _mm512_load_ps(acc + c * kRows);
      blocks[c] = reinterpret_cast<const ActivationQ8x32*>(x[c] + x_offset);
    }
    for (int b = 0; b < count; ++b) {
      __m512i dot[kColumns];
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) {
        dot[c] = _mm512_set1_epi32(-kOffset<Block> * blocks[c][b].sum);
      }
#pragma GCC unroll 8
      for (int t = 0; t < 8; ++t) {
        const __m512i w = _mm512_load_si512(tile.q[8 * b + t]);
#pragma GCC unroll 8
        for (int c = 0; c < kColumns; ++c) {
          dot[c] = _mm512_dpbusd_epi32(dot[c], w, BroadcastDword(blocks[c][b].q + 4 * t));
        }
      }
      const __m512 d = _mm512_load_ps(tile.d[b]);
      const __m512 m = _mm512_load_ps(tile.m[b]);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) {
        const __m512 dx = _mm512_set1_ps(blocks[c][b].scale);
        sum[c] = _mm512_fmadd_ps(_mm512_mul_ps(d, dx), _mm512_cvtepi32_ps(dot[c]), sum[c]);
        if constexpr (sizeof(Block) == sizeof(BlockQ4_1)) {
          const __m512 x_sum = _mm512_set1_ps(static_cast<float>(blocks[c][b].sum));
          sum[c] = _mm512_fmadd_ps(_mm512_mul_ps(m, dx), x_sum, sum[c]);
        }
      }
    }
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) _mm512_store_ps(acc + c * kRows, sum[c]);
  }
};

}  // namespace

void MatmulQ8_0(const MatmulParams& p) { MatmulTiles<Level, BlocksWalk<Level, BlockQ8_0>>(p); }
void MatmulQ4_0(const MatmulParams& p) { MatmulTiles<Level, BlocksWalk<Level, BlockQ4_0>>(p); }
void MatmulQ4_1(const MatmulParams& p) { MatmulTiles<Level, BlocksWalk<Level, BlockQ4_1>>(p); }
void MatmulQ4_K(const MatmulParams& p) { MatmulTiles<Level, SuperBlockWalk<Level, BlockQ4_K>>(p); }
void MatmulQ5_K(const MatmulParams& p) { MatmulTiles<Level, SuperBlockWalk<Level, BlockQ5_K>>(p); }
void MatmulQ6_K(const MatmulParams& p) { MatmulTiles<Level, SuperBlockWalk<Level, BlockQ6_K>>(p); }

}  // namespace millrace::cpu::avx512
