// Products of weights that lie as kernels/cuda/weight_layout.h says with rows of activations that
// lie as kernels/cuda/activations.h says:
//
//   v = W[e(j)][i, :] * X[x_row(j), :]     i in [0, n), j in [0, rows)
//   v = v + bias[i]                        where there is a bias
//   Y[y_row(j), i] = v                     where there is a Y
//   A[y_row(j), i] = A[y_row(j), i] + v    where there is an A: the residual
//
// with the bits of docs/numerics.md, "Products", for every kernel, number of rows, order of rows
// and split of k: inside a block all is integers, and one thread does the float operations of an
// output, over blocks in ascending k.
//
// Three kernels (matmul_vector, matmul_tensor, matmul_float) take these parameters;
// kernels/cuda/matmul_plan.h says which serves when, LaunchMatmul asks it and launches.
//
// Host code; thread-safe. Nothing here owns memory: pointers are to device memory, and what a
// kernel reads stays until it has run.
#ifndef MILLRACE_KERNELS_CUDA_MATMUL_H_
#define MILLRACE_KERNELS_CUDA_MATMUL_H_

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/weight_layout.h"

namespace millrace::cuda {

// q, k and v, or gate and up: what shares rows shares a launch.
inline constexpr int kMaxMatrices = 4;

struct MatmulMatrix {
  const std::byte* w = nullptr;  // 16-byte aligned; expert e at w + e * expert_bytes
  std::int64_t expert_bytes = 0;
  WeightForm form = WeightForm::kF32;
  std::int32_t n = 0;            // rows of an expert's matrix
  const std::byte* x = nullptr;  // rows in the form's format of activations, 16-byte aligned
  const float* bias = nullptr;   // [n] or null
  float* y = nullptr;            // [*][y_stride] or null
  float* add_to = nullptr;       // [*][y_stride] or null; y or add_to is given
  std::int64_t y_stride = 0;     // floats between rows of y and of add_to
};

// Which rows, one of:
//   dense         neither `experts` nor `expert_offsets`
//   pairs         experts[j] is the expert of row j
//   sorted pairs  rows [expert_offsets[e], expert_offsets[e + 1]) are expert e's
struct MatmulParams {
  std::array<MatmulMatrix, kMaxMatrices> matrices;
  int num_matrices = 0;
  std::int64_t k = 0;  // of all matrices

  // rows = min(*count * rows_per_count, max_rows), or max_rows where count is null: a step's
  // tokens, or K pairs for each. Sorted pairs: expert_offsets[num_experts], at most max_rows.
  const std::int32_t* count = nullptr;
  std::int32_t rows_per_count = 1;
  std::int32_t max_rows = 0;

  const std::int32_t* experts = nullptr;         // [max_rows]
  const std::int32_t* expert_offsets = nullptr;  // [num_experts + 1]
  std::int32_t num_experts = 0;

  const std::int32_t* x_rows = nullptr;  // [max_rows]; null: j / rows_per_x
  std::int32_t rows_per_x = 1;
  const std::int32_t* y_rows = nullptr;  // [max_rows]; null: j

  // The kernel may begin while the one before it ends (kernels/cuda/launch.h).
  bool chained = false;
};

// What a launch may fill.
struct MatmulDevice {
  int multiprocessors = 132;
};

// Plans, and launches one kernel, or one for each form where the forms do not share a kernel.
cudaError_t LaunchMatmul(const MatmulParams& params, const MatmulDevice& device,
                         cudaStream_t stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_MATMUL_H_
