// Rows of the embedding table by token, from the layout of the products (a tied table is the head's
// matrix too) to floats: to the bit DequantizeRow of kernels/dequantize.h. Host code; thread-safe.
// Owns nothing.
#ifndef MILLRACE_KERNELS_CUDA_EMBED_H_
#define MILLRACE_KERNELS_CUDA_EMBED_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace millrace::cuda {

// All pointers are the device's.
struct EmbedParams {
  DType dtype = DType::kF32;
  const std::byte* table = nullptr;  // [V, n] as kernels/cuda/weight_layout.h lays it out
  std::int32_t n = 0;
  const std::int32_t* token_ids = nullptr;   // [*num_tokens], each a row of the table
  const std::int32_t* num_tokens = nullptr;  // [1], at most max_tokens
  std::int32_t max_tokens = 0;
  float* x = nullptr;    // [*num_tokens][n]
  bool chained = false;  // kernels/cuda/launch.h
};

cudaError_t LaunchEmbed(const EmbedParams& params, cudaStream_t stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_EMBED_H_
