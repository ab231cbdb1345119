// The operations around the experts for any lanes type; the definitions are in kernels/cpu/moe.h.
// Internal to kernels/cpu.
#ifndef MILLRACE_KERNELS_CPU_MOE_BODY_H_
#define MILLRACE_KERNELS_CPU_MOE_BODY_H_

#include <cstdint>

#include "kernels/cpu/exp_body.h"

namespace millrace::cpu {

// Lanes i.. of a row of n, the missing ones `fill`.
template <typename L>
typename L::Reg LoadRow(const float* row, std::int64_t i, std::int64_t n, float fill) {
  if (i + 16 <= n) return L::Load(row + i);
  return L::LoadTail(row + i, static_cast<int>(n - i), fill);
}

template <typename L>
void StoreRow(float* row, std::int64_t i, std::int64_t n, const typename L::Reg& value) {
  if (i + 16 <= n) return L::Store(row + i, value);
  L::StoreTail(row + i, static_cast<int>(n - i), value);
}

template <typename L>
float MaxOfRow(const float* row, std::int64_t n) {
  const float lowest = -__builtin_inff();
  typename L::Reg max = L::Set1(lowest);
  for (std::int64_t i = 0; i < n; i += 16) max = L::Max(max, LoadRow<L>(row, i, n, lowest));
  return L::MaxOf(max);
}

// Puts (expert, p) into the descending list of the best `count` so far, where it belongs; the list
// holds at most k. Equal ones stay in order of arrival, a NaN goes behind all numbers.
template <typename L>
void InsertExpert(std::int32_t expert, float p, std::int32_t count, std::int32_t k,
                  std::int32_t* experts, float* weights) {
  const auto before = [](float a, float b) { return a > b || (a == a && b != b); };
  std::int32_t at = count;
  if (count == k) {
    if (!before(p, weights[k - 1])) return;
    at = k - 1;
  }
  for (; at > 0 && before(p, weights[at - 1]); --at) {
    experts[at] = experts[at - 1];
    weights[at] = weights[at - 1];
  }
  experts[at] = expert;
  weights[at] = p;
}

template <typename L>
void RouteRow(const float* logits, std::int32_t num_experts, std::int32_t k, bool normalise,
              std::int32_t* experts, float* weights) {
  using Reg = typename L::Reg;
  const Reg max = L::Set1(MaxOfRow<L>(logits, num_experts));
  float lanes[16];
  Reg sum = L::Set1(0.0F);
  for (std::int32_t i = 0; i < num_experts; i += 16) {
    L::Store(lanes, ExpLanes<L>(L::Sub(LoadRow<L>(logits, i, num_experts, 0.0F), max)));
    sum = L::Add(sum, LoadRow<L>(lanes, 0, num_experts - i, 0.0F));
  }
  const Reg total = L::Set1(L::Sum(sum));
  std::int32_t count = 0;
  for (std::int32_t i = 0; i < num_experts; i += 16) {  // exp once more instead of keeping it
    const Reg e = ExpLanes<L>(L::Sub(LoadRow<L>(logits, i, num_experts, 0.0F), max));
    L::Store(lanes, L::Div(e, total));
    for (std::int32_t j = 0; j < 16 && i + j < num_experts; ++j) {
      InsertExpert<L>(i + j, lanes[j], count, k, experts, weights);
      if (count < k) ++count;
    }
  }
  if (!normalise) return;
  float chosen = 0.0F;
  for (std::int32_t r = 0; r < k; ++r) chosen += weights[r];
  for (std::int32_t r = 0; r < k; ++r) weights[r] = weights[r] / chosen;
}

template <typename L>
void SwigluRow(const float* gate, const float* up, std::int64_t n, float* out) {
  using Reg = typename L::Reg;
  const Reg zero = L::Set1(0.0F);
  const Reg one = L::Set1(1.0F);
  for (std::int64_t i = 0; i < n; i += 16) {
    const Reg x = LoadRow<L>(gate, i, n, 0.0F);
    const Reg silu = L::Div(x, L::Add(one, ExpLanes<L>(L::Sub(zero, x))));
    StoreRow<L>(out, i, n, L::Mul(silu, LoadRow<L>(up, i, n, 0.0F)));
  }
}

template <typename L>
void CombineRow(const float* x, const float* rows, std::int64_t row_stride, const float* weights,
                std::int32_t k, std::int64_t n, float* y) {
  using Reg = typename L::Reg;
  for (std::int64_t i = 0; i < n; i += 16) {
    Reg sum = L::Mul(L::Set1(weights[0]), LoadRow<L>(rows, i, n, 0.0F));
    for (std::int32_t r = 1; r < k; ++r) {
      sum = L::Fma(L::Set1(weights[r]), LoadRow<L>(rows + r * row_stride, i, n, 0.0F), sum);
    }
    StoreRow<L>(y, i, n, L::Add(LoadRow<L>(x, i, n, 0.0F), sum));
  }
}

template <typename L>
void AddRow(const float* a, const float* b, std::int64_t n, float* y) {
  for (std::int64_t i = 0; i < n; i += 16) {
    StoreRow<L>(y, i, n, L::Add(LoadRow<L>(a, i, n, 0.0F), LoadRow<L>(b, i, n, 0.0F)));
  }
}

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_MOE_BODY_H_
