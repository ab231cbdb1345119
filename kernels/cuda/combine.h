// The end of a feed-forward: the chosen experts' outputs by their weights, added to the residual;
// and the plain sum of two rows. To the bit the operations of kernels/cpu/moe.h (combine, add).
// Host code; thread-safe. Owns nothing.
#ifndef MILLRACE_KERNELS_CUDA_COMBINE_H_
#define MILLRACE_KERNELS_CUDA_COMBINE_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace millrace::cuda {

// y[t][i] = x[t][i] + fma(w[K-1], e[K-1][i], ... fma(w[1], e[1][i], w[0] * e[0][i])), where e[r] is
// row t * K + r of `rows`. All pointers are the device's, rows contiguous.
struct CombineParams {
  const float* x = nullptr;                  // [*num_tokens][width], the residual
  const float* rows = nullptr;               // [*num_tokens * K][width], by slot
  const float* weights = nullptr;            // [*num_tokens][K]
  const std::int32_t* num_tokens = nullptr;  // [1], at most max_tokens
  std::int32_t max_tokens = 0;
  std::int32_t experts_per_token = 0;  // K >= 1
  std::int32_t width = 0;
  float* y = nullptr;    // [*num_tokens][width]; may be x
  bool chained = false;  // kernels/cuda/launch.h
};
cudaError_t LaunchCombine(const CombineParams& params, cudaStream_t stream);

// y[t][i] = a[t][i] + b[t][i].
struct AddParams {
  const float* a = nullptr;                  // [*num_tokens][width]
  const float* b = nullptr;                  // [*num_tokens][width]
  const std::int32_t* num_tokens = nullptr;  // [1], at most max_tokens
  std::int32_t max_tokens = 0;
  std::int32_t width = 0;
  float* y = nullptr;    // [*num_tokens][width]; may be either
  bool chained = false;  // kernels/cuda/launch.h
};
cudaError_t LaunchAdd(const AddParams& params, cudaStream_t stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_COMBINE_H_
