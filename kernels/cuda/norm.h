// Root mean square norm of rows, and its result in every format that readers read: to the bit
// kernels/cpu/norm.h followed by kernels/cpu/quantize.h. The end of the feed-forward before it, the
// sum of the chosen experts' outputs, can come first, as kernels/cpu/moe.h (combine) has it. Host
// code; thread-safe. Owns nothing.
#ifndef MILLRACE_KERNELS_CUDA_NORM_H_
#define MILLRACE_KERNELS_CUDA_NORM_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/activation_rows.h"

namespace millrace::cuda {

// All pointers are the device's, those to floats aligned to 16. Of a chained launch the kernel just
// before may write x, expert_rows and expert_weights, but none of the rest.
struct NormParams {
  float* x = nullptr;  // [..][n], x_stride floats from row to row
  std::int64_t x_stride = 0;
  const float* weight = nullptr;  // [n]
  std::int32_t n = 0;
  float eps = 0.0F;
  // Row r is that of x at row_index[r]; at r itself where this is null.
  const std::int32_t* row_index = nullptr;  // [*num_rows]
  const std::int32_t* num_rows = nullptr;   // [1], at most max_rows
  std::int32_t max_rows = 0;
  // Where not null, what the K experts of a row computed is added to it first:
  //   x[i] = x[i] + fma(w[K-1], e[K-1][i], ... fma(w[1], e[1][i], w[0] * e[0][i])),
  // where e[r] is row K * row + r of expert_rows. x keeps the sum where row_index is null; else
  // it stays as it is, since a row may be asked for twice.
  const float* expert_rows = nullptr;     // [rows of x * K][n]
  const float* expert_weights = nullptr;  // [rows of x][K]
  std::int32_t experts_per_token = 0;     // K >= 1
  // Row r of the result. REQUIRES: n is a multiple of 32 for q8x32, of 256 for q8x256.
  ActivationRows out;
  bool chained = false;  // kernels/cuda/launch.h
};

cudaError_t LaunchNorm(const NormParams& params, cudaStream_t stream);

// Shared memory of a row that is normed: its values up to whole vectors of 16, and the factor; rows
// stay aligned to 16 bytes.
constexpr std::int32_t NormPadded(std::int32_t n) { return (n + 15) / 16 * 16; }
constexpr std::int32_t NormRowFloats(std::int32_t n) { return NormPadded(n) + 4; }
// Of a block of LaunchNorm, which also keeps the weights there: of no use to a GPU that gives a
// block less.
constexpr std::int64_t NormSharedBytes(std::int32_t n) {
  return (std::int64_t{NormRowFloats(n)} + n) * std::int64_t{sizeof(float)};
}
// Rows of x and of experts can be read in 16 bytes.
constexpr bool NormInFours(const NormParams& params) {
  return params.n % 4 == 0 && params.x_stride % 4 == 0;
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_NORM_H_
