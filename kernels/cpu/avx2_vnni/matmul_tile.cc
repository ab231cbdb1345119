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
  static V DotBytes(V sum, V w, V x) { return _mm256_dpbusd_avx_epi32(sum, w, x); }
  static V DotWords(V sum, V a, V b) { return _mm256_dpwssd_avx_epi32(sum, a, b); }
  static F ToFloats(V a) { return _mm256_cvtepi32_ps(a); }
  static F Set1(float value) { return _mm256_set1_ps(value); }
  static F LoadFloats(const float* at) { return _mm256_load_ps(at); }
  static void StoreFloats(float* at, F value) { _mm256_store_ps(at, value); }
  static F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F NegatedFma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
};

using Level = VnniLevel<Registers>;

template <typename Block>
constexpr MatmulFn kBlocks = MatmulTiles<Level, BlocksWalk<Level, Block>>;
template <typename Block>
constexpr MatmulFn kSuperBlocks = MatmulTiles<Level, SuperBlockWalk<Level, Block>>;

}  // namespace

const MatmulVariant kQuantisedMatmuls[kQuantisedTypes] = {
    {Isa::kAvx2Vnni, DType::kQ8_0, "avx2-vnni/Q8_0", kBlocks<BlockQ8_0>},
    {Isa::kAvx2Vnni, DType::kQ4_0, "avx2-vnni/Q4_0", kBlocks<BlockQ4_0>},
    {Isa::kAvx2Vnni, DType::kQ4_1, "avx2-vnni/Q4_1", kBlocks<BlockQ4_1>},
    {Isa::kAvx2Vnni, DType::kQ5_0, "avx2-vnni/Q5_0", kBlocks<BlockQ5_0>},
    {Isa::kAvx2Vnni, DType::kQ5_1, "avx2-vnni/Q5_1", kBlocks<BlockQ5_1>},
    {Isa::kAvx2Vnni, DType::kIQ4_NL, "avx2-vnni/IQ4_NL", kBlocks<BlockIQ4_NL>},
    {Isa::kAvx2Vnni, DType::kQ2_K, "avx2-vnni/Q2_K", kSuperBlocks<BlockQ2_K>},
    {Isa::kAvx2Vnni, DType::kQ3_K, "avx2-vnni/Q3_K", kSuperBlocks<BlockQ3_K>},
    {Isa::kAvx2Vnni, DType::kQ4_K, "avx2-vnni/Q4_K", kSuperBlocks<BlockQ4_K>},
    {Isa::kAvx2Vnni, DType::kQ5_K, "avx2-vnni/Q5_K", kSuperBlocks<BlockQ5_K>},
    {Isa::kAvx2Vnni, DType::kQ6_K, "avx2-vnni/Q6_K", kSuperBlocks<BlockQ6_K>},
    {Isa::kAvx2Vnni, DType::kIQ4_XS, "avx2-vnni/IQ4_XS", kSuperBlocks<BlockIQ4_XS>},
};

}  // namespace millrace::cpu::avx2_vnni
