// Rows of activations that a kernel writes and products read, in the formats of
// kernels/cuda/activations.h. A value, for host and device; owns nothing.
#ifndef MILLRACE_KERNELS_CUDA_ACTIVATION_ROWS_H_
#define MILLRACE_KERNELS_CUDA_ACTIVATION_ROWS_H_

#include <cstddef>

namespace millrace::cuda {

// Rows in device memory, one array for each format; null where nobody reads that format.
struct ActivationRows {
  std::byte* f32 = nullptr;
  std::byte* q8x32 = nullptr;
  std::byte* q8x256 = nullptr;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_ACTIVATION_ROWS_H_
