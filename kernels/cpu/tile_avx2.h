// What the levels with 8 rows in a 256-bit register share of a policy of kernels/cpu/matmul_tile.h.
// Internal to kernels/cpu/avx2 and avx2_vnni. Thread-safe (pure).
#ifndef MILLRACE_KERNELS_CPU_TILE_AVX2_H_
#define MILLRACE_KERNELS_CPU_TILE_AVX2_H_

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace millrace::cpu {
namespace {

struct TileAvx2 {
  static constexpr int kRows = 8;
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

  // table[b] for each byte b in 0..15.
  static U LookUp(const std::int8_t* table, U bytes) {
    const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return reinterpret_cast<U>(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries),
                                                   reinterpret_cast<__m256i>(bytes)));
  }

  static __m256i BroadcastDword(const void* at) {
    std::int32_t bits;
    __builtin_memcpy(&bits, at, sizeof(bits));
    return _mm256_set1_epi32(bits);
  }
};

}  // namespace
}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_TILE_AVX2_H_
