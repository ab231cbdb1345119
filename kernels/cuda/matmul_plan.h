// Which kernel computes a product, and in which shape: a pure function of sizes, so that a captured
// graph of a bucket of rows is always the same. No result depends on it.
//
// Thread-safe (pure); needs no CUDA.
#ifndef MILLRACE_KERNELS_CUDA_MATMUL_PLAN_H_
#define MILLRACE_KERNELS_CUDA_MATMUL_PLAN_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/block_limits.h"
#include "kernels/cuda/weight_layout.h"

namespace millrace::cuda {

enum class MatmulKernel : std::uint8_t { kVector, kTensor, kFloat };

// Columns are rows of activations. What a block of threads does:
struct MatmulShape {
  MatmulKernel kernel = MatmulKernel::kVector;
  // kVector: 1 (dp4a) or 8 (matrix products); kTensor: 16, 32 or 64; kFloat: 1, 4 or 8.
  int columns = 1;
  int tiles = 1;         // kVector, kTensor: tiles of 16 weight rows
  int splits = 1;        // kVector: warps that share k
  int pass_units = 1;    // kVector: units of k between two barriers; a multiple of splits
  const char* why = "";  // for logs and for people
};

struct MatmulProblem {
  WeightForm form = WeightForm::kQ4_K;
  std::int64_t k = 0;
  std::int64_t tiles = 0;  // of all matrices of the launch: 16 rows each (float forms: rows)
  std::int32_t max_rows = 0;
  std::int32_t num_experts = 0;  // above 0: rows are pairs sorted by expert
  bool pairs = false;            // rows are pairs that are not sorted
  int multiprocessors = 132;
};

MatmulShape PlanMatmul(const MatmulProblem& problem);

// The vector kernel's shape for so many columns, whatever PlanMatmul would choose.
MatmulShape PlanVector(const MatmulProblem& problem, int columns);

// Bytes of shared memory of a block of the vector kernel.
std::int64_t VectorSharedBytes(WeightForm form, std::int64_t k, const MatmulShape& shape);

// Blocks of rows that sorted pairs can take at most, `columns` rows each, every expert's apart.
std::int64_t MaxRowBlocks(std::int32_t max_rows, std::int32_t num_experts, int columns);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_MATMUL_PLAN_H_
