// SwiGLU of the rows of a feed-forward, quantised for the product that reads them: the operations
// of kernels/cpu/moe.h (swiglu) and kernels/cpu/quantize.h to the bit. Host code; thread-safe. Owns
// nothing.
#ifndef MILLRACE_KERNELS_CUDA_SWIGLU_H_
#define MILLRACE_KERNELS_CUDA_SWIGLU_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/activation_rows.h"

namespace millrace::cuda {

// Row r of `out` = the forms of silu(gate[r][i]) * up[r][i], silu(x) = x / (1 + exp(-x)). All
// pointers are the device's. R = *num_tokens * rows_per_token rows, in any order.
struct SwigluParams {
  const float* gate = nullptr;               // [R][ffn], rows `stride` apart
  const float* up = nullptr;                 // the same
  std::int64_t stride = 0;                   // in floats; at least ffn
  const std::int32_t* num_tokens = nullptr;  // [1], at most max_tokens
  std::int32_t max_tokens = 0;
  std::int32_t rows_per_token = 1;  // experts per token; 1 for a dense feed-forward
  std::int32_t ffn = 0;             // a multiple of the blocks of the formats that are wanted
  ActivationRows out;               // [R] rows of ffn values
  bool chained = false;             // kernels/cuda/launch.h
};
cudaError_t LaunchSwiglu(const SwigluParams& params, cudaStream_t stream);

// Values that a warp computes together: a block of the wider format.
inline constexpr int kSwigluValues = 256;
// Rows of gate and up can be read in 16 bytes.
inline bool SwigluInFours(const SwigluParams& params) {
  const auto aligned = [](const float* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  return params.ffn % 4 == 0 && params.stride % 4 == 0 && aligned(params.gate) &&
         aligned(params.up);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_SWIGLU_H_
