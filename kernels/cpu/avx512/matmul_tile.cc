// Quantised products by tiles of 16 rows, with the vpdpbusd of AVX-512 VNNI.
#include <immintrin.h>

#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/matmul_vnni_body.h"

namespace millrace::cpu::avx512 {
namespace {

struct Registers {
  static constexpr int kRows = 16;
  static constexpr int kMaxColumns = 8;
  typedef std::uint32_t U __attribute__((vector_size(64)));
  typedef std::int32_t I __attribute__((vector_size(64)));
  using V = __m512i;
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

  // table[b] for each byte b in 0..15.
  static U LookUp(const std::int8_t* table, U bytes) {
    const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return reinterpret_cast<U>(
        _mm512_shuffle_epi8(_mm512_broadcast_i32x4(entries), reinterpret_cast<__m512i>(bytes)));
  }

  static V BroadcastDword(const void* at) {
    std::int32_t bits;
    __builtin_memcpy(&bits, at, sizeof(bits));
    return _mm512_set1_epi32(bits);
  }
  static V Load(const void* at) { return _mm512_load_si512(at); }
  static V Set1(int value) { return _mm512_set1_epi32(value); }
  static V Add(V a, V b) { return _mm512_add_epi32(a, b); }
  static V Sub(V a, V b) { return _mm512_sub_epi32(a, b); }
  static V Mul(V a, V b) { return _mm512_mullo_epi32(a, b); }
  static V DotBytes(V sum, V w, V x) { return _mm512_dpbusd_epi32(sum, w, x); }
  static V DotWords(V sum, V a, V b) { return _mm512_dpwssd_epi32(sum, a, b); }
  static F ToFloats(V a) { return _mm512_cvtepi32_ps(a); }
  static F Set1(float value) { return _mm512_set1_ps(value); }
  static F LoadFloats(const float* at) { return _mm512_load_ps(at); }
  static void StoreFloats(float* at, F value) { _mm512_store_ps(at, value); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F NegatedFma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
};

using Level = VnniLevel<Registers>;

template <typename Block>
constexpr MatmulFn kBlocks = MatmulTiles<Level, BlocksWalk<Level, Block>>;
template <typename Block>
constexpr MatmulFn kSuperBlocks = MatmulTiles<Level, SuperBlockWalk<Level, Block>>;

}  // namespace

const MatmulVariant kQuantisedMatmuls[kQuantisedTypes] = {
    {Isa::kAvx512, DType::kQ8_0, "avx512/Q8_0", kBlocks<BlockQ8_0>},
    {Isa::kAvx512, DType::kQ4_0, "avx512/Q4_0", kBlocks<BlockQ4_0>},
    {Isa::kAvx512, DType::kQ4_1, "avx512/Q4_1", kBlocks<BlockQ4_1>},
    {Isa::kAvx512, DType::kQ5_0, "avx512/Q5_0", kBlocks<BlockQ5_0>},
    {Isa::kAvx512, DType::kQ5_1, "avx512/Q5_1", kBlocks<BlockQ5_1>},
    {Isa::kAvx512, DType::kIQ4_NL, "avx512/IQ4_NL", kBlocks<BlockIQ4_NL>},
    {Isa::kAvx512, DType::kQ2_K, "avx512/Q2_K", kSuperBlocks<BlockQ2_K>},
    {Isa::kAvx512, DType::kQ3_K, "avx512/Q3_K", kSuperBlocks<BlockQ3_K>},
    {Isa::kAvx512, DType::kQ4_K, "avx512/Q4_K", kSuperBlocks<BlockQ4_K>},
    {Isa::kAvx512, DType::kQ5_K, "avx512/Q5_K", kSuperBlocks<BlockQ5_K>},
    {Isa::kAvx512, DType::kQ6_K, "avx512/Q6_K", kSuperBlocks<BlockQ6_K>},
    {Isa::kAvx512, DType::kIQ4_XS, "avx512/IQ4_XS", kSuperBlocks<BlockIQ4_XS>},
};

}  // namespace millrace::cpu::avx512
