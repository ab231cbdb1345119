// The 16 virtual f32 lanes in two registers of AVX2, with FMA and F16C; the interface is described
// in kernels/cpu/lanes16_scalar.h. Only for files compiled for this level. Thread-safe values.
#ifndef MILLRACE_KERNELS_CPU_LANES16_AVX2_H_
#define MILLRACE_KERNELS_CPU_LANES16_AVX2_H_

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/fp8.h"

namespace millrace::cpu {

struct LanesAvx2 {
  static constexpr Isa kIsa = Isa::kAvx2;
  static constexpr int kScoreRows = 1;
  static constexpr int kDirectRows = 8;
  static constexpr int kValueRows = 4;
  static constexpr int kValueVectors = 1;

  struct Reg {
    __m256 lo;
    __m256 hi;
  };

  static Reg Set1(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  static Reg Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  // Masked loads would give zeros, not `fill`; tails are rare enough for a detour.
  static Reg LoadTail(const float* p, int n, float fill) {
    float lanes[16];
    for (int i = 0; i < 16; ++i) lanes[i] = i < n ? p[i] : fill;
    return Load(lanes);
  }
  static void Store(float* p, const Reg& a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
  }
  static void StoreTail(float* p, int n, const Reg& a) {
    float lanes[16];
    Store(lanes, a);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
  }
  static Reg LoadHalf(const std::uint16_t* p) {
    const __m128i* halves = reinterpret_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
  }
  static Reg LoadHalfTail(const std::uint16_t* p, int n) {
    std::uint16_t lanes[16];
    for (int i = 0; i < 16; ++i) lanes[i] = i < n ? p[i] : std::uint16_t{0};
    return LoadHalf(lanes);
  }
  // As a half's bits the value is 2^-8 of itself, subnormal or not.
  static Reg LoadFp8(const Fp8* p) {
    const __m256i bytes =
        _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(bytes, 7),
                                            _mm256_set1_epi16(static_cast<std::int16_t>(0xBF80)));
    const __m256i all_ones = _mm256_set1_epi16(-1);  // but for the sign: NaN, in a half too
    const __m256i nan = _mm256_cmpeq_epi16(
        _mm256_or_si256(bytes, _mm256_set1_epi16(static_cast<std::int16_t>(0xFF80))), all_ones);
    const __m256i wide = _mm256_or_si256(halves, nan);
    const __m256 scale = _mm256_set1_ps(0x1p8F);
    return {_mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(wide)), scale),
            _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(wide, 1)), scale)};
  }
  static Reg LoadFp8Tail(const Fp8* p, int n) {
    Fp8 lanes[16];
    for (int i = 0; i < 16; ++i) lanes[i] = i < n ? p[i] : Fp8{0};
    return LoadFp8(lanes);
  }
  static Reg LoadInt8(const std::int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
  }
  static Reg SetHalf(std::uint16_t half) { return Set1(_cvtsh_ss(half)); }
  static void StoreHalf(std::uint16_t* p, const Reg& a) {
    __m128i* halves = reinterpret_cast<__m128i*>(p);
    _mm_storeu_si128(halves, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(halves + 1, _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
  }
  static void StoreHalfTail(std::uint16_t* p, int n, const Reg& a) {
    std::uint16_t lanes[16];
    StoreHalf(lanes, a);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
  }

  static Reg Add(const Reg& a, const Reg& b) {
    return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
  }
  static Reg Sub(const Reg& a, const Reg& b) {
    return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
  }
  static Reg Mul(const Reg& a, const Reg& b) {
    return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
  }
  static Reg Div(const Reg& a, const Reg& b) {
    return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
  }
  static Reg Fma(const Reg& a, const Reg& b, const Reg& c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static Reg Fms(const Reg& a, const Reg& b, const Reg& c) {
    return {_mm256_fmsub_ps(a.lo, b.lo, c.lo), _mm256_fmsub_ps(a.hi, b.hi, c.hi)};
  }
  static Reg Max(const Reg& a, const Reg& b) {
    return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
  }
  static Reg SelectLess(const Reg& a, const Reg& b, const Reg& yes, const Reg& no) {
    return {_mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
            _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
  }
  static Reg SelectNan(const Reg& a, const Reg& yes, const Reg& no) {
    return {_mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(a.lo, a.lo, _CMP_UNORD_Q)),
            _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(a.hi, a.hi, _CMP_UNORD_Q))};
  }
  static Reg AddExponent(const Reg& y, const Reg& t) {
    return {AddExponent8(y.lo, t.lo), AddExponent8(y.hi, t.hi)};
  }

  static float Sum(const Reg& a) {
    const __m256 x = _mm256_add_ps(a.lo, a.hi);
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
  }
  static float MaxOf(const Reg& a) {
    const __m256 x = _mm256_max_ps(a.lo, a.hi);
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
  }
  static void Sum4(const Reg (&a)[4], float* out) {
    const __m256 x = Halve4(a[0], a[1]);  // [4 sums of a[0]][4 sums of a[1]]
    const __m256 y = Halve4(a[2], a[3]);
    const __m256 pairs =
        _mm256_add_ps(_mm256_shuffle_ps(x, y, 0x44), _mm256_shuffle_ps(x, y, 0xEE));
    const __m256 sums =  // [0 2 0 2][1 3 1 3]
        _mm256_add_ps(_mm256_shuffle_ps(pairs, pairs, 0x88), _mm256_shuffle_ps(pairs, pairs, 0xDD));
    _mm_storeu_ps(out,
                  _mm_unpacklo_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1)));
  }

  static float Fma1(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
  static float Sqrt1(float a) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(a))); }

 private:
  static __m256 AddExponent8(__m256 y, __m256 t) {
    const __m256i shifted = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), shifted));
  }
  static __m256 Halve4(const Reg& a, const Reg& b) {
    const __m256 x = _mm256_add_ps(a.lo, a.hi);
    const __m256 y = _mm256_add_ps(b.lo, b.hi);
    return _mm256_add_ps(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
  }
};

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_LANES16_AVX2_H_
