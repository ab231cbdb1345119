// What the warps of the vector product leave in shared memory for the threads that do the float
// steps. Leaf header, host and device (constexpr).
#ifndef MILLRACE_KERNELS_CUDA_VECTOR_SLOTS_H_
#define MILLRACE_KERNELS_CUDA_VECTOR_SLOTS_H_

#include <cstdint>

#include "kernels/cuda/activations.h"
#include "kernels/cuda/form_traits.h"
#include "kernels/cuda/weight_layout.h"

namespace millrace::cuda {

// One float step of one output: acc = fma(d * s, isum, acc).
struct alignas(8) VectorSlot {
  float d;
  float isum;
};
// And acc = fma(m * s, msum, acc), where m has its sign; msum only where it is not the activations'
// own (kQ8x32).
struct alignas(16) VectorMinSlot {
  float d;
  float isum;
  float m;
  float msum;
};

// Slots from one column's 16 to the next one's. A warp writes slots of eight rows of every other
// column at once: with these distances they lie in different banks.
constexpr int VectorColumnSlots(WeightForm form, int columns) {
  if (columns == 1) return kTileRows;
  return TraitsOf(form).mins ? kTileRows + 1 : kTileRows + 2;
}

// Bytes of a unit's slots of one tile.
constexpr std::int64_t VectorUnitBytes(WeightForm form, int columns) {
  const FormTraits traits = TraitsOf(form);
  const std::int64_t slot = traits.mins ? sizeof(VectorMinSlot) : sizeof(VectorSlot);
  return slot * traits.blocks * VectorColumnSlots(form, columns) * columns;
}

// Bytes of a column's scales of all units; its sums are as many, where they are kept.
constexpr std::int64_t VectorScaleBytes(WeightForm form, std::int64_t k) {
  return RoundUp(4 * UnitCount(k) * TraitsOf(form).blocks, 16);
}

constexpr std::int64_t VectorColumnBytes(WeightForm form, std::int64_t k) {
  const FormTraits traits = TraitsOf(form);
  return VectorScaleBytes(form, k) * (traits.blocks > 1 && traits.mins ? 2 : 1);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_VECTOR_SLOTS_H_
