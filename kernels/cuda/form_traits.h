// What the products do with a unit of each form of weights (kernels/cuda/weight_layout.h), as
// constants. Leaf header, host and device (constexpr); thread-safe.
#ifndef MILLRACE_KERNELS_CUDA_FORM_TRAITS_H_
#define MILLRACE_KERNELS_CUDA_FORM_TRAITS_H_

#include "kernels/cuda/weight_layout.h"
#include "kernels/dtype.h"

namespace millrace::cuda {

struct FormTraits {
  // Float steps of an output in a unit: 1, or 8 for types whose blocks are 32 values.
  int blocks;
  // Integer scales in a unit: for each 32 values, for each 16, or none.
  int scales;
  // There is a second float step, with the sums of the activations.
  bool mins;

  constexpr ActivationFormat activation() const {
    return blocks == 1 ? ActivationFormat::kQ8x256 : ActivationFormat::kQ8x32;
  }
};

// REQUIRES: a quantised form.
constexpr FormTraits TraitsOf(WeightForm form) {
  switch (form) {
    case WeightForm::kQ4_K:
    case WeightForm::kQ5_K:
      return {1, 8, true};
    case WeightForm::kQ6_K:
    case WeightForm::kBytes16:
      return {1, 16, false};
    case WeightForm::kBytes16Min:
      return {1, 16, true};
    case WeightForm::kQ4_1:
    case WeightForm::kBytes32Min:
      return {8, 0, true};
    default:
      return {8, 0, false};
  }
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_FORM_TRAITS_H_
