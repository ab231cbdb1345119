#include "kernels/cuda/matmul_float.h"

#include <array>

#include "kernels/cuda/device.h"
#include "kernels/cuda/lanes16.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matmul_float_block.h"

namespace millrace::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHalves = kThreads / kLanes16;  // of warps

struct FloatArgs {
  MatmulParams params;
  std::array<int, kMaxMatrices> first_block;  // of each matrix, in the grid's y
};

template <WeightForm kForm, int kRows, int kColumns>
__global__ void __launch_bounds__(kThreads, 2) FloatKernel(const __grid_constant__ FloatArgs args) {
  // Groups whose loads are under way together: where a thread has one output, they alone hide the
  // latency of memory.
  constexpr int kAhead = kRows * kColumns > 1 ? 1 : (kForm == WeightForm::kF32 ? 8 : 4);
  const MatmulParams& params = args.params;
  const MatrixBlock block = MatrixBlockOf(params, args.first_block);
  const int half = static_cast<int>(threadIdx.x) / kLanes16;
  const std::int32_t first = (block.index * kHalves + half) * kRows;
  RunFloat<kForm, kRows, kColumns, kAhead, false>(params, params.matrices[block.matrix],
                                                  static_cast<int>(blockIdx.x), first);
}

struct FloatEntry {
  WeightForm form;
  int rows;
  int columns;
  void (*kernel)(FloatArgs);
};

template <WeightForm kForm, int kRows, int kColumns>
constexpr FloatEntry Entry() {
  return {kForm, kRows, kColumns, FloatKernel<kForm, kRows, kColumns>};
}

constexpr FloatEntry kEntries[] = {
    Entry<WeightForm::kF32, 1, 1>(),  Entry<WeightForm::kF32, 2, 4>(),
    Entry<WeightForm::kF32, 4, 8>(),  Entry<WeightForm::kF16, 1, 1>(),
    Entry<WeightForm::kF16, 2, 4>(),  Entry<WeightForm::kF16, 4, 8>(),
    Entry<WeightForm::kBF16, 1, 1>(), Entry<WeightForm::kBF16, 2, 4>(),
    Entry<WeightForm::kBF16, 4, 8>(),
};

const FloatEntry* FindEntry(WeightForm form, int columns) {
  for (const FloatEntry& entry : kEntries) {
    if (entry.form == form && entry.columns == columns) return &entry;
  }
  return nullptr;
}

}  // namespace

cudaError_t LaunchMatmulFloat(const MatmulParams& params, const MatmulShape& shape,
                              cudaStream_t stream) {
  const WeightForm form = params.matrices[0].form;
  const FloatEntry* entry = FindEntry(form, shape.columns);
  if (entry == nullptr || (params.experts != nullptr && shape.columns != 1)) {
    return cudaErrorInvalidValue;
  }
  FloatArgs args = {params, {}};
  int blocks = 0;
  for (int m = 0; m < params.num_matrices; ++m) {
    const MatmulMatrix& matrix = params.matrices[static_cast<std::size_t>(m)];
    if (matrix.form != form) return cudaErrorInvalidValue;
    args.first_block[static_cast<std::size_t>(m)] = blocks;
    blocks += (matrix.n + kHalves * entry->rows - 1) / (kHalves * entry->rows);
  }
  const std::int64_t row_blocks = MaxRowBlocks(
      params.max_rows, params.expert_offsets != nullptr ? params.num_experts : 0, entry->columns);
  if (blocks == 0 || row_blocks == 0) return cudaSuccess;
  LaunchShape launch;
  // Blocks that read the same weights are neighbours in time.
  launch.grid = dim3(static_cast<unsigned>(row_blocks), static_cast<unsigned>(blocks));
  launch.block = dim3(kThreads);
  launch.chained = params.chained;
  return Launch(entry->kernel, launch, stream, args);
}

}  // namespace millrace::cuda
