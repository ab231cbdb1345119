// Which rows a block of a product works on. Device code.
#ifndef MILLRACE_KERNELS_CUDA_MATMUL_ROWS_H_
#define MILLRACE_KERNELS_CUDA_MATMUL_ROWS_H_

#include <array>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/matmul.h"

namespace millrace::cuda {

// Dense rows or pairs; reads what earlier kernels wrote.
__device__ inline std::int32_t RowCount(const MatmulParams& params) {
  if (params.count == nullptr) return params.max_rows;
  const std::int32_t rows = *params.count * params.rows_per_count;
  return rows < params.max_rows ? rows : params.max_rows;
}

__device__ inline std::int64_t XRow(const MatmulParams& params, std::int32_t j) {
  return params.x_rows != nullptr ? params.x_rows[j] : j / params.rows_per_x;
}

__device__ inline std::int64_t YRow(const MatmulParams& params, std::int32_t j) {
  return params.y_rows != nullptr ? params.y_rows[j] : j;
}

// One output, with what is added to it, in the numerics' order.
__device__ inline void Store(const MatmulMatrix& matrix, std::int64_t y_row, std::int32_t i,
                             float value) {
  const std::int64_t at = y_row * matrix.y_stride + i;
  if (matrix.bias != nullptr) value = value + matrix.bias[i];
  if (matrix.y != nullptr) matrix.y[at] = value;
  if (matrix.add_to != nullptr) matrix.add_to[at] = matrix.add_to[at] + value;
}

// Which matrix of a launch a block works on, and the block's number there; `first_block` are the
// matrices' first ones in the grid's y.
struct MatrixBlock {
  int matrix;
  int index;
};
__device__ inline MatrixBlock MatrixBlockOf(const MatmulParams& params,
                                            const std::array<int, kMaxMatrices>& first_block) {
  const int block = static_cast<int>(blockIdx.y);
  int m = 0;
  while (m + 1 < params.num_matrices && block >= first_block[m + 1]) ++m;
  return {m, block - first_block[m]};
}

// Rows [begin, begin + count) of one expert; count is 0 where a block has nothing to do.
struct RowBlock {
  std::int32_t expert = 0;
  std::int32_t begin = 0;
  std::int32_t count = 0;
};

__device__ inline std::int32_t AtMost(std::int32_t value, std::int32_t limit) {
  return value < limit ? value : limit;
}

// Block `index` of sorted pairs that are cut into `columns` rows, every expert's apart: all threads
// of a warp, each of which looks at one expert of 32. The offsets of several such groups are asked
// for at once, since a block waits for them.
__device__ inline RowBlock SortedRowBlock(const MatmulParams& params, int index, int columns) {
  constexpr int kGroups = 4;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  int before = 0;  // blocks of the experts before a group's
  for (std::int32_t first = 0; first < params.num_experts; first += kGroups * kWarpSize) {
    std::int32_t begins[kGroups];
    std::int32_t counts[kGroups];
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      const std::int32_t expert = first + i * kWarpSize + lane;
      const bool is_one = expert < params.num_experts;
      begins[i] = is_one ? params.expert_offsets[expert] : 0;
      counts[i] = is_one ? params.expert_offsets[expert + 1] - begins[i] : 0;
    }
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      const int blocks = (counts[i] + columns - 1) / columns;
      int up_to = blocks;  // of this expert and those before it in the group
      for (int apart = 1; apart < kWarpSize; apart *= 2) {
        const int other = Shuffle(up_to, lane < apart ? lane : lane - apart);
        if (lane >= apart) up_to += other;
      }
      const unsigned after = Ballot(before + up_to > index);
      if (after != 0) {
        int found = 0;
        while ((after >> found) % 2 == 0) ++found;
        const int part = index - before - Shuffle(up_to - blocks, found);
        const std::int32_t left = Shuffle(counts[i], found) - part * columns;
        return {first + i * kWarpSize + found, Shuffle(begins[i], found) + part * columns,
                AtMost(left, columns)};
      }
      before += Shuffle(up_to, kWarpSize - 1);
    }
  }
  return {};
}

// Block `index` of `columns` dense rows, or of one pair.
__device__ inline RowBlock PlainRowBlock(const MatmulParams& params, int index, int columns) {
  RowBlock block;
  block.begin = index * columns;
  const std::int32_t left = RowCount(params) - block.begin;
  block.count = left < 0 ? 0 : AtMost(left, columns);
  if (params.experts != nullptr && block.count > 0) block.expert = params.experts[block.begin];
  return block;
}

__device__ inline RowBlock FindRowBlock(const MatmulParams& params, int index, int columns) {
  if (params.expert_offsets != nullptr) return SortedRowBlock(params, index, columns);
  return PlainRowBlock(params, index, columns);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_MATMUL_ROWS_H_
