#include "runtime/backend/cuda_weight_bytes.h"

#include "kernels/cuda/weight_layout.h"

namespace millrace {

std::int64_t CudaWeightBytes(DType dtype, std::span<const std::int64_t> shape) {
  const std::int64_t k = shape.back();
  // Vectors of any type become floats.
  if (shape.size() == 1) return k * std::int64_t{sizeof(float)};
  const std::int64_t experts = shape.size() == 3 ? shape[0] : 1;
  return experts * cuda::LaidOutBytes(dtype, shape[shape.size() - 2], k);
}

}  // namespace millrace
