// Whether what follows a product is done in the product's kernel, as its tail: by the last block of
// each group of blocks that together make what the tail needs (kernels/cuda/last_block.h). A pure
// function of sizes, as kernels/cuda/matmul_plan.h. No result depends on it.
//
// Thread-safe (pure); needs no CUDA.
#ifndef MILLRACE_KERNELS_CUDA_TAIL_PLAN_H_
#define MILLRACE_KERNELS_CUDA_TAIL_PLAN_H_

#include <cstdint>
#include <span>

#include "kernels/cuda/matmul_plan.h"

namespace millrace::cuda {

// What can follow a product.
enum class TailKind : std::uint8_t {
  kNone,
  kNorm,        // kernels/cuda/norm.h: whole rows, and all pairs of a token
  kRopeAppend,  // kernels/cuda/rope_append.h: the rows of a head, of q, k or v
  kSwiglu,      // kernels/cuda/swiglu.h: the same 256 values of gate and up
};

struct TailProblem {
  TailKind kind = TailKind::kNone;
  MatmulShape product;        // of the launch
  std::int32_t max_rows = 0;  // of activations
  std::int64_t blocks = 0;    // of the launch
  int multiprocessors = 132;
  // Rows of the matrices; where the tail reads two side by side (gate and up), of one of them.
  std::span<const std::int32_t> n;
  std::int32_t unit = 1;           // values of a row that the tail needs together; kNorm: all n
  std::int32_t rows_per_unit = 1;  // rows that it needs together: the pairs of a token
  std::int64_t unit_bytes = 0;     // shared memory for one unit of one row
  bool one_launch = true;          // all that the tail reads is written by this launch
  bool plain = true;               // rows stay in their order, and lie aligned to 16 bytes
  std::int32_t num_counters = 0;   // of groups at most
};

struct TailShape {
  bool fused = false;
  std::int32_t group_values = 0;  // of a matrix, whose blocks are a group
  std::int32_t row_blocks = 1;    // blocks of rows that are a group
  std::int32_t units_at_once = 0;
  std::int64_t shared_bytes = 0;
  const char* why = "";  // for logs and for people
};

TailShape PlanTail(const TailProblem& problem);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_TAIL_PLAN_H_
