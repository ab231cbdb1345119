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

  static F LoadHalves(const std::byte* at) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
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
