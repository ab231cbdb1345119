// A product and what follows it, in one kernel where that pays (kernels/cuda/tail_plan.h), else in
// two: the same bits. What follows reads what the product writes, whole rows or parts of rows that
// many blocks make together, so the last of these blocks does it.
//
// Host code; thread-safe. Owns nothing.
#ifndef MILLRACE_KERNELS_CUDA_MATMUL_TAIL_H_
#define MILLRACE_KERNELS_CUDA_MATMUL_TAIL_H_

#include <cuda_runtime.h>

#include <array>
#include <cstdint>

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/rope_append.h"
#include "kernels/cuda/swiglu.h"
#include "kernels/cuda/tail_plan.h"

namespace millrace::cuda {

// The operation of `kind`, as its own launch takes it. It reads the product's output as the product
// writes it:
//   kNorm        x is what a single matrix adds to, of as many rows as the product has; or
//                expert_rows is what it writes, of all K pairs of as many tokens
//   kRopeAppend  q, k and v are what three matrices write, in this order
//   kSwiglu      gate and up are what two matrices write
struct MatmulTail {
  TailKind kind = TailKind::kNone;
  NormParams norm;
  RopeAppendParams rope_append;
  SwigluParams swiglu;
  // [num_counters] for groups of blocks: kernels/cuda/last_block.h. None: no tail is fused.
  std::int32_t* counters = nullptr;
  std::int32_t num_counters = 0;
};

cudaError_t LaunchMatmulThen(const MatmulParams& params, const MatmulTail& tail,
                             const MatmulDevice& device, cudaStream_t stream);

// Whether LaunchMatmulThen takes one kernel for both (for each form of weights).
bool FusesTail(const MatmulParams& params, const MatmulTail& tail, const MatmulDevice& device);

// The stand-alone kernel of a tail.
cudaError_t LaunchTail(const MatmulTail& tail, cudaStream_t stream);

// How a launch of the vector kernel fuses a tail. REQUIRES: shape.fused.
struct FusedTail {
  MatmulTail tail;
  TailShape shape;
  // kRopeAppend: number of each matrix's first head among all of q, k and v.
  std::array<std::int32_t, kMaxMatrices> first_head = {};
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_MATMUL_TAIL_H_
