// e^x for 16 lanes, the same bits on every level:
//
//   n = round(x / ln 2),  r = x - n ln 2 (in two steps),  e^r = 1 + (r + r^2 q(r)),  e^x = 2^n e^r
//
// Within 1 ulp of the true value (tests/kernels/exp_test.cc); exp(0) is exactly 1; NaN stays NaN;
// above ln(FLT_MAX) infinity, below ln(FLT_MIN) 0: no subnormal results, which would be slow.
// Thread-safe.
#ifndef MILLRACE_KERNELS_CPU_EXP_BODY_H_
#define MILLRACE_KERNELS_CPU_EXP_BODY_H_

#include <cstdint>

namespace millrace::cpu {

template <typename L>
[[gnu::always_inline]] inline typename L::Reg ExpLanes(const typename L::Reg& x) {
  using Reg = typename L::Reg;
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
  const Reg shift = L::Set1(0x1.8p23F);
  const Reg t = L::Fma(x, L::Set1(0x1.715476p0F), shift);
  const Reg n = L::Sub(t, shift);
  Reg r = L::Fma(n, L::Set1(-0x1.62e43p-1F), x);
  r = L::Fma(n, L::Set1(0x1.05c61p-29F), r);
  // Minimax for e^r over |r| <= ln(2) / 2: relative error 2^-28.
  Reg q = L::Set1(0x1.6a2352p-10F);
  q = L::Fma(q, r, L::Set1(0x1.123a6cp-7F));
  q = L::Fma(q, r, L::Set1(0x1.5558f4p-5F));
  q = L::Fma(q, r, L::Set1(0x1.55549p-3F));
  q = L::Fma(q, r, L::Set1(0x1.fffffcp-2F));
  const Reg e = L::Add(L::Fma(q, L::Mul(r, r), r), L::Set1(1.0F));
  Reg y = L::AddExponent(e, t);
  const Reg lowest = L::Set1(-0x1.5d589ep6F);  // the last with a normal result
  const Reg highest = L::Set1(0x1.62e42ep6F);  // the last with a finite result
  y = L::SelectLess(x, lowest, L::Set1(0.0F), y);
  y = L::SelectLess(highest, x, L::Set1(__builtin_inff()), y);
  return L::SelectNan(x, x, y);
}

// e^x of a single number, by the same operations.
template <typename L>
inline float ExpOne(float x) {
  float lanes[16];
  L::Store(lanes, ExpLanes<L>(L::Set1(x)));
  return lanes[0];
}

template <typename L>
void ExpArrayOf(const float* x, std::int64_t n, float* y) {
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) L::Store(y + i, ExpLanes<L>(L::Load(x + i)));
  if (i < n) {
    const int tail = static_cast<int>(n - i);
    L::StoreTail(y + i, tail, ExpLanes<L>(L::LoadTail(x + i, tail, 0.0F)));
  }
}

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_EXP_BODY_H_
