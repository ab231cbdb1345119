// The 16 virtual f32 lanes in one register of AVX-512; the interface is described in
// kernels/cpu/lanes16_scalar.h. Only for files compiled for this level. Thread-safe values.
#ifndef MILLRACE_KERNELS_CPU_LANES16_AVX512_H_
#define MILLRACE_KERNELS_CPU_LANES16_AVX512_H_

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/fp8.h"

namespace millrace::cpu {

struct LanesAvx512 {
  static constexpr Isa kIsa = Isa::kAvx512;
  static constexpr int kScoreRows = 4;
  static constexpr int kDirectRows = 8;
  static constexpr int kValueRows = 8;
  static constexpr int kValueVectors = 2;

  using Reg = __m512;

  static Reg Set1(float value) { return _mm512_set1_ps(value); }
  static Reg Load(const float* p) { return _mm512_loadu_ps(p); }
  static Reg LoadTail(const float* p, int n, float fill) {
    return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), Mask(n), p);
  }
  static void Store(float* p, Reg a) { _mm512_storeu_ps(p, a); }
  static void StoreTail(float* p, int n, Reg a) { _mm512_mask_storeu_ps(p, Mask(n), a); }
  static Reg LoadHalf(const std::uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Reg LoadHalfTail(const std::uint16_t* p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(Mask(n), p));
  }
  static Reg LoadFp8(const Fp8* p) {
    return WidenFp8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Reg LoadFp8Tail(const Fp8* p, int n) { return WidenFp8(_mm_maskz_loadu_epi8(Mask(n), p)); }
  static Reg LoadInt8(const std::int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  }
  static Reg SetHalf(std::uint16_t half) { return Set1(_cvtsh_ss(half)); }
  static void StoreHalf(std::uint16_t* p, Reg a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), ToHalf(a));
  }
  static void StoreHalfTail(std::uint16_t* p, int n, Reg a) {
    _mm256_mask_storeu_epi16(p, Mask(n), ToHalf(a));
  }

  static Reg Add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg Sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  static Reg Mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  static Reg Div(Reg a, Reg b) { return _mm512_div_ps(a, b); }
  static Reg Fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static Reg Fms(Reg a, Reg b, Reg c) { return _mm512_fmsub_ps(a, b, c); }
  static Reg Max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
  static Reg SelectLess(Reg a, Reg b, Reg yes, Reg no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
  }
  static Reg SelectNan(Reg a, Reg yes, Reg no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), no, yes);
  }
  static Reg AddExponent(Reg y, Reg t) {
    const __m512i shifted = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(y), shifted));
  }

  static float Sum(Reg a) {
    const __m256 x = _mm256_add_ps(Low(a), High(a));
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
  }
  static float MaxOf(Reg a) {
    const __m256 x = _mm256_max_ps(Low(a), High(a));
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
  }
  static void Sum4(const Reg (&a)[4], float* out) {
    const Reg quads = Halve4(Halve8(a[0], a[1]), Halve8(a[2], a[3]));
    const Reg pairs = Halve2(quads, quads);
    const Reg sums = Halve1(pairs, pairs);  // sum i in all of the i-th four lanes
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(
                           _mm512_castsi128_si512(_mm_setr_epi32(0, 4, 8, 12)), sums)));
  }
  // out[r][i] = Sum(a[r][i]): four times Sum4 with a quarter of the shuffles.
  static void Sum4x4(const Reg (&a)[4][4], float* const (&out)[4]) {
    Reg quads[4];
    for (int i = 0; i < 4; ++i) {
      quads[i] = Halve4(Halve8(a[0][i], a[1][i]), Halve8(a[2][i], a[3][i]));
    }
    const Reg sums = Halve1(Halve2(quads[0], quads[1]), Halve2(quads[2], quads[3]));
    _mm_storeu_ps(out[0], _mm512_castps512_ps128(sums));
    _mm_storeu_ps(out[1], _mm512_extractf32x4_ps(sums, 1));
    _mm_storeu_ps(out[2], _mm512_extractf32x4_ps(sums, 2));
    _mm_storeu_ps(out[3], _mm512_extractf32x4_ps(sums, 3));
  }

  static float Fma1(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
  static float Sqrt1(float a) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(a))); }

 private:
  // As a half's bits the value is 2^-8 of itself, subnormal or not.
  static Reg WidenFp8(__m128i bytes) {
    const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(bytes), 7),
                                            _mm256_set1_epi16(static_cast<std::int16_t>(0xBF80)));
    const __mmask16 numbers = _mm_cmpneq_epi8_mask(
        _mm_or_si128(bytes, _mm_set1_epi8(static_cast<char>(0x80))), _mm_set1_epi8(-1));
    return _mm512_mask_mul_ps(Set1(__builtin_nanf("")), numbers, _mm512_cvtph_ps(halves),
                              Set1(0x1p8F));
  }
  static __mmask16 Mask(int n) { return static_cast<__mmask16>((1U << n) - 1U); }
  static __m256i ToHalf(Reg a) {
    return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // Masked with all ones: gcc 12 warns of the plain forms, which start from an undefined register.
  static __m256 Low(Reg a) { return _mm512_maskz_extractf32x8_ps(0xFF, a, 0); }
  static __m256 High(Reg a) { return _mm512_maskz_extractf32x8_ps(0xFF, a, 1); }

  // One level of the tree for two registers at once; the results lie side by side.
  static Reg Halve8(Reg a, Reg b) {  // [a: 8 sums][b: 8 sums]
    return Add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
  }
  static Reg Halve4(Reg a, Reg b) {  // 4 sums each of a's two inputs, then of b's
    return Add(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
  }
  static Reg Halve2(Reg a, Reg b) {  // in each four lanes: 2 sums of a, 2 sums of b
    return Add(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xEE));
  }
  static Reg Halve1(Reg a, Reg b) {  // in each four lanes: a's two sums, b's two sums
    return Add(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD));
  }
};

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_LANES16_AVX512_H_
