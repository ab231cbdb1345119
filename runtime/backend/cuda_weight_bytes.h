// What a tensor takes of a GPU's memory. The CUDA backend lays weights out for its kernels
// (kernels/cuda/weight_layout.h), where some types are larger than in the file; here that can be
// told without a GPU, the backend's module, or a byte of the tensor. Thread-safe (pure).
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_WEIGHT_BYTES_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_WEIGHT_BYTES_H_

#include <cstdint>
#include <span>

#include "kernels/dtype.h"

namespace millrace {

// `shape` is as LoadWeight takes it: [k], [n, k] or [experts, n, k].
std::int64_t CudaWeightBytes(DType dtype, std::span<const std::int64_t> shape);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_WEIGHT_BYTES_H_
