// Quantised products by tiles of 8 rows, with the vpdpbusd of AVX-VNNI.
#include <immintrin.h>

#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/matmul_vnni_body.h"
#include "kernels/cpu/tile_avx2.h"

namespace millrace::cpu::avx2_vnni {
namespace {

struct Registers : TileAvx2 {
  static constexpr int kMaxColumns = 4;
  using V = __m256i;

  static V Load(const void* at) { return _mm256_load_si256(static_cast<const __m256i*>(at)); }
  static V Set1(int value) { return _mm256_set1_epi32(value); }
  static V Add(V a, V b) { return _mm256_add_epi32(a, b); }
  static V Sub(V a, V b) { return _mm256_sub_epi32(a, b); }
  static V Mul(V a, V b) { return _mm256_mullo_epi32(a, b); }
  static V DotBytes(V sum, V w, const void* x) {
    return _mm256_dpbusd_avx_epi32(sum, w, BroadcastDword(x));
  }
  static V DotWords(V sum, V a, const void* b) {
    return _mm256_dpwssd_avx_epi32(sum, a, BroadcastDword(b));
  }
  static F ToFloats(V a) { return _mm256_cvtepi32_ps(a); }
  static F Set1(float value) { return _mm256_set1_ps(value); }
  static F LoadFloats(const float* at) { return _mm256_load_ps(at); }
  static void StoreFloats(float* at, F value) { _mm256_store_ps(at, value); }
  static F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F NegatedFma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
};

using Level = VnniLevel<Registers>;

}  // namespace

constinit const std::array<MatmulVariant, kQuantisedTypes> kQuantisedMatmuls =
    TileMatmuls<Level>(Isa::kAvx2Vnni);

}  // namespace millrace::cpu::avx2_vnni
