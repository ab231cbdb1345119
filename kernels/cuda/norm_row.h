// The norm of rows, in its steps, by teams of threads: for the kernel of its own (norm.cu) and for
// the end of a product (tail_block.h). What one does the other does, so bits are the same.
//
// The sum of squares has 16 virtual lanes (docs/numerics.md), so half a warp computes it, from
// shared memory; loads, products and quantisation are everybody's. Device code; all threads of a
// block call together, each with its team.
#ifndef MILLRACE_KERNELS_CUDA_NORM_ROW_H_
#define MILLRACE_KERNELS_CUDA_NORM_ROW_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/combine.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/lanes16.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/quantize.h"
#include "kernels/cuda/team.h"

namespace millrace::cuda {

// What a team works on: a row in shared memory, filled up to whole vectors of 16, and behind it
// the factor of all its values.
struct NormSpace {
  float* row;  // aligned to 16
  float* factor;
};
__device__ inline NormSpace NormSpaceOf(int n, int team) {
  float* row = BlockShared<float>() + team * NormRowFloats(n);
  return {row, row + NormPadded(n)};
}

// Fills the team's row with row `from` of x, to which what the row's experts computed is added
// where there are any; kValues at a time.
template <int kValues>
__device__ inline void LoadNormRow(const NormParams& params, std::int64_t from, float* row,
                                   const Team& team) {
  float* x = params.x + from * params.x_stride;
  const int first = kValues * team.thread;
  const int step = kValues * team.threads;
  if (params.expert_rows == nullptr) {
#pragma unroll 8
    for (int i = first; i < params.n; i += step) {
      StoreValues<kValues>(row + i, LoadValues<kValues>(x + i));
    }
  } else {
    const std::int64_t slot = from * params.experts_per_token;
    const float* experts = params.expert_rows + slot * params.n;
    for (int i = first; i < params.n; i += step) {
      Values<kValues> value = LoadValues<kValues>(x + i);
      const Values<kValues> sum = CombineRanks<kValues>(
          experts + i, params.n, params.expert_weights + slot, params.experts_per_token);
#pragma unroll
      for (int v = 0; v < kValues; ++v) value.at[v] = value.at[v] + sum.at[v];
      if (params.row_index == nullptr) StoreValues<kValues>(x + i, value);
      StoreValues<kValues>(row + i, value);
    }
  }
  for (int i = params.n + team.thread; i < NormPadded(params.n); i += team.threads) row[i] = 0.0F;
}

// One warp; both of its halves compute the same.
__device__ inline float SumOfSquares(const float* row, int padded) {
  float sum = 0.0F;
#pragma unroll 8
  for (int i = static_cast<int>(threadIdx.x) % kLanes16; i < padded; i += kLanes16) {
    sum = Fma(row[i], row[i], sum);
  }
  return Sum16(sum);
}

// Norms the team's row, which lies there once all threads of the block have come. A team without a
// row (`works` is false) only goes along. `weight` may be in shared or global memory.
__device__ inline void NormLoadedRow(const NormParams& params, const float* weight, bool works,
                                     const NormSpace& space, const Team& team) {
  SyncBlock();
  if (works && team.warp() == 0) {
    const float sum = SumOfSquares(space.row, NormPadded(params.n));
    if (team.thread == 0) {
      *space.factor = 1.0F / sqrtf(sum / static_cast<float>(params.n) + params.eps);
    }
  }
  SyncBlock();
  if (works) {
    const float factor = *space.factor;
    for (int i = team.thread; i < params.n; i += team.threads) {
      space.row[i] = (space.row[i] * factor) * weight[i];
    }
  }
  SyncBlock();
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_NORM_ROW_H_
