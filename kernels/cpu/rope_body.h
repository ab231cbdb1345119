// Rotary position embedding for any lanes type; the definition is in kernels/cpu/rope.h. Internal
// to kernels/cpu.
#ifndef MILLRACE_KERNELS_CPU_ROPE_BODY_H_
#define MILLRACE_KERNELS_CPU_ROPE_BODY_H_

#include <cstdint>

#include "kernels/rope_pairing.h"

namespace millrace::cpu {

template <typename L>
void RotateOne(float* a, float* b, float cosine, float sine) {
  const float x = *a;
  const float y = *b;
  *a = L::Fma1(x, cosine, -(y * sine));
  *b = L::Fma1(y, cosine, x * sine);
}

template <typename L>
void RotateHalves(float* row, std::int32_t half, const float* cosines, const float* sines) {
  using Reg = typename L::Reg;
  std::int32_t i = 0;
  for (; i + 16 <= half; i += 16) {
    const Reg a = L::Load(row + i);
    const Reg b = L::Load(row + half + i);
    const Reg cosine = L::Load(cosines + i);
    const Reg sine = L::Load(sines + i);
    L::Store(row + i, L::Fms(a, cosine, L::Mul(b, sine)));
    L::Store(row + half + i, L::Fma(b, cosine, L::Mul(a, sine)));
  }
  for (; i < half; ++i) RotateOne<L>(row + i, row + half + i, cosines[i], sines[i]);
}

template <typename L>
void RopeRow(float* row, std::int32_t rotary_dim, RopePairing pairing, const float* cosines,
             const float* sines) {
  const std::int32_t half = rotary_dim / 2;
  if (pairing == RopePairing::kNeox) return RotateHalves<L>(row, half, cosines, sines);
  for (std::int32_t i = 0; i < half; ++i) {
    RotateOne<L>(row + 2 * i, row + 2 * i + 1, cosines[i], sines[i]);
  }
}

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_ROPE_BODY_H_
