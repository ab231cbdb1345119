// The 16 virtual f32 lanes of the numerics (docs/numerics.md) in portable C++: the definition that
// the other levels reproduce bit for bit, NaN payloads apart. Leaf header; thread-safe values.
#ifndef MILLRACE_KERNELS_CPU_LANES16_SCALAR_H_
#define MILLRACE_KERNELS_CPU_LANES16_SCALAR_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/isa.h"
#include "kernels/dequantize.h"
#include "kernels/fp8.h"

namespace millrace::cpu {

// Bodies of operations are templates on such a type, which also keeps the code of different levels
// apart for the linker. Every member of the interface is described here.
struct LanesScalar {
  static constexpr Isa kIsa = Isa::kScalar;
  // How many heads share a key, and rows and vectors share a value, in registers; speed alone.
  static constexpr int kScoreRows = 1;
  // How many rows at most take halves and floats from the cache as they are multiplied, for speed.
  static constexpr int kDirectRows = 1;
  static constexpr int kValueRows = 1;
  static constexpr int kValueVectors = 1;

  struct Reg {
    float lane[16];
  };

  static Reg Set1(float value) {
    Reg r;
    for (float& lane : r.lane) lane = value;
    return r;
  }
  static Reg Load(const float* p) {
    Reg r;
    std::memcpy(r.lane, p, sizeof(r.lane));
    return r;
  }
  // The first `n` lanes (0 <= n < 16) from memory, the rest `fill`; touches no other memory.
  static Reg LoadTail(const float* p, int n, float fill) {
    Reg r = Set1(fill);
    for (int i = 0; i < n; ++i) r.lane[i] = p[i];
    return r;
  }
  static void Store(float* p, const Reg& a) { std::memcpy(p, a.lane, sizeof(a.lane)); }
  static void StoreTail(float* p, int n, const Reg& a) {
    for (int i = 0; i < n; ++i) p[i] = a.lane[i];
  }
  static Reg LoadHalf(const std::uint16_t* p) { return LoadHalfTail(p, 16); }
  static Reg LoadHalfTail(const std::uint16_t* p, int n) {
    Reg r = Set1(0.0F);
    for (int i = 0; i < n; ++i) r.lane[i] = HalfToFloat(p[i]);
    return r;
  }
  static Reg LoadFp8(const Fp8* p) { return LoadFp8Tail(p, 16); }
  static Reg LoadFp8Tail(const Fp8* p, int n) {
    Reg r = Set1(0.0F);
    for (int i = 0; i < n; ++i) r.lane[i] = Fp8ToFloat(p[i]);
    return r;
  }
  // 16 integers, widened; and one half in every lane.
  static Reg LoadInt8(const std::int8_t* p) {
    Reg r;
    for (int i = 0; i < 16; ++i) r.lane[i] = static_cast<float>(p[i]);
    return r;
  }
  static Reg SetHalf(std::uint16_t half) { return Set1(HalfToFloat(half)); }
  static void StoreHalf(std::uint16_t* p, const Reg& a) { StoreHalfTail(p, 16, a); }
  static void StoreHalfTail(std::uint16_t* p, int n, const Reg& a) {
    for (int i = 0; i < n; ++i) p[i] = FloatToHalf(a.lane[i]);
  }

  static Reg Add(const Reg& a, const Reg& b) {
    Reg r;
    for (int i = 0; i < 16; ++i) r.lane[i] = a.lane[i] + b.lane[i];
    return r;
  }
  static Reg Sub(const Reg& a, const Reg& b) {
    Reg r;
    for (int i = 0; i < 16; ++i) r.lane[i] = a.lane[i] - b.lane[i];
    return r;
  }
  static Reg Mul(const Reg& a, const Reg& b) {
    Reg r;
    for (int i = 0; i < 16; ++i) r.lane[i] = a.lane[i] * b.lane[i];
    return r;
  }
  static Reg Div(const Reg& a, const Reg& b) {
    Reg r;
    for (int i = 0; i < 16; ++i) r.lane[i] = a.lane[i] / b.lane[i];
    return r;
  }
  static Reg Fma(const Reg& a, const Reg& b, const Reg& c) {  // a * b + c, rounded once
    Reg r;
    for (int i = 0; i < 16; ++i) r.lane[i] = std::fma(a.lane[i], b.lane[i], c.lane[i]);
    return r;
  }
  static Reg Fms(const Reg& a, const Reg& b, const Reg& c) {  // a * b - c, rounded once
    Reg r;
    for (int i = 0; i < 16; ++i) r.lane[i] = std::fma(a.lane[i], b.lane[i], -c.lane[i]);
    return r;
  }
  static Reg Max(const Reg& a, const Reg& b) {  // a > b ? a : b, so b if either is NaN
    Reg r;
    for (int i = 0; i < 16; ++i) r.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
    return r;
  }
  static Reg SelectLess(const Reg& a, const Reg& b, const Reg& yes, const Reg& no) {
    Reg r;
    for (int i = 0; i < 16; ++i) r.lane[i] = a.lane[i] < b.lane[i] ? yes.lane[i] : no.lane[i];
    return r;
  }
  static Reg SelectNan(const Reg& a, const Reg& yes, const Reg& no) {
    Reg r;
    for (int i = 0; i < 16; ++i) r.lane[i] = std::isnan(a.lane[i]) ? yes.lane[i] : no.lane[i];
    return r;
  }
  // y * 2^n by adding to the exponent's bits, n in the low bits of t's (kernels/cpu/exp_body.h).
  static Reg AddExponent(const Reg& y, const Reg& t) {
    std::uint32_t y_bits[16];
    std::uint32_t t_bits[16];
    std::memcpy(y_bits, y.lane, sizeof(y_bits));
    std::memcpy(t_bits, t.lane, sizeof(t_bits));
    for (int i = 0; i < 16; ++i) y_bits[i] += t_bits[i] << 23;
    Reg r;
    std::memcpy(r.lane, y_bits, sizeof(y_bits));
    return r;
  }

  // The fixed tree: lanes 8 apart, then 4, 2, 1.
  static float Sum(Reg a) {
    for (int width = 8; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) a.lane[i] += a.lane[i + width];
    }
    return a.lane[0];
  }
  static float MaxOf(Reg a) {
    for (int width = 8; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) {
        a.lane[i] = a.lane[i] > a.lane[i + width] ? a.lane[i] : a.lane[i + width];
      }
    }
    return a.lane[0];
  }
  // out[i] = Sum(a[i]) for i < 4.
  static void Sum4(const Reg (&a)[4], float* out) {
    for (int i = 0; i < 4; ++i) out[i] = Sum(a[i]);
  }

  static float Fma1(float a, float b, float c) { return std::fma(a, b, c); }
  static float Sqrt1(float a) { return std::sqrt(a); }
};

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_LANES16_SCALAR_H_
