// Which rows a block of a product works on. Device code.
#ifndef MILLRACE_KERNELS_CUDA_MATMUL_ROWS_H_
#define MILLRACE_KERNELS_CUDA_MATMUL_ROWS_H_

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
// of a warp, each of which looks at one expert of 32.
__device__ inline RowBlock SortedRowBlock(const MatmulParams& params, int index, int columns) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  int before = 0;  // blocks of the experts before these 32
  for (std::int32_t first = 0; first < params.num_experts; first += kWarpSize) {
    const std::int32_t expert = first + lane;
    const bool is_one = expert < params.num_experts;
    const std::int32_t begin = is_one ? params.expert_offsets[expert] : 0;
    const std::int32_t rows = is_one ? params.expert_offsets[expert + 1] - begin : 0;
    const int blocks = (rows + columns - 1) / columns;
    int up_to = before + blocks;  // with this expert's
    for (int apart = 1; apart < kWarpSize; apart *= 2) {
      const int other = Shuffle(up_to, lane - apart < 0 ? lane : lane - apart);
      if (lane >= apart) up_to += other - before;
    }
    const unsigned after = Ballot(up_to > index);
    if (after != 0) {
      int found = 0;
      while ((after >> found) % 2 == 0) ++found;
      const int part = index - (Shuffle(up_to, found) - Shuffle(blocks, found));
      const std::int32_t left = Shuffle(rows, found) - part * columns;
      return {first + found, Shuffle(begin, found) + part * columns, AtMost(left, columns)};
    }
    before = Shuffle(up_to, kWarpSize - 1);
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
