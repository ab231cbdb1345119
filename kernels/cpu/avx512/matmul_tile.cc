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
  typedef std::int32_t Dword __attribute__((may_alias));
  using V = __m512i;
  using F = __m512;

  static F LoadHalves(const std::byte* at) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
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

  static V Load(const void* at) { return _mm512_load_si512(at); }
  static V Set1(int value) { return _mm512_set1_epi32(value); }
  static V Add(V a, V b) { return _mm512_add_epi32(a, b); }
  static V Sub(V a, V b) { return _mm512_sub_epi32(a, b); }
  static V Mul(V a, V b) { return _mm512_mullo_epi32(a, b); }
  // The instructions read the dword themselves. Compilers of 2022 make a second instruction and a
  // register of that, and copies of sums to make room for it (ADR 0022).
  static V DotBytes(V sum, V w, const void* x) {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*static_cast<const Dword*>(x)));
    return sum;
  }
  static V DotWords(V sum, V a, const void* b) {
    asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(a), "m"(*static_cast<const Dword*>(b)));
    return sum;
  }
  static F ToFloats(V a) { return _mm512_cvtepi32_ps(a); }
  static F Set1(float value) { return _mm512_set1_ps(value); }
  static F LoadFloats(const float* at) { return _mm512_load_ps(at); }
  static void StoreFloats(float* at, F value) { _mm512_store_ps(at, value); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F NegatedFma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
};

using Level = VnniLevel<Registers>;

}  // namespace

constinit const std::array<MatmulVariant, kQuantisedTypes> kQuantisedMatmuls =
    TileMatmuls<Level>(Isa::kAvx512);

}  // namespace millrace::cpu::avx512
