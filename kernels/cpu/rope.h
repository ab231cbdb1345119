// Rotary position embedding of one head row, from a table of cosines and sines of its position.
//
// For a pair (a, b) and angle t: a' = a cos t - b sin t, b' = b cos t + a sin t, each as
//   a' = fma(a, cos, -(b * sin)),   b' = fma(b, cos, a * sin).
// Elements from rotary_dim on are left alone. Thread-safe.
#ifndef MILLRACE_KERNELS_CPU_ROPE_H_
#define MILLRACE_KERNELS_CPU_ROPE_H_

#include <cstdint>
#include <span>

#include "kernels/cpu/isa.h"
#include "kernels/rope_pairing.h"

namespace millrace::cpu {

// Rotates `row` [rotary_dim] in place; kernels/rope_angles.h makes the cosines and sines.
using RopeFn = void (*)(float* row, std::int32_t rotary_dim, RopePairing pairing,
                        const float* cosines, const float* sines);

struct RopeVariant {
  Isa isa;
  const char* name;
  RopeFn fn;
};

std::span<const RopeVariant> RopeVariants();
const RopeVariant& SelectRope(Isa isa);

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_ROPE_H_
