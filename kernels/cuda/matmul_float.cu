#include "kernels/cuda/matmul_float.h"

#include <array>

#include "kernels/cuda/activations.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/lanes16.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matmul_rows.h"

namespace millrace::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHalves = kThreads / kLanes16;  // of warps

struct FloatArgs {
  MatmulParams params;
  std::array<int, kMaxMatrices> first_block;  // of each matrix, in the grid's y
};

// Steps of a lane in 16 bytes.
template <WeightForm kForm>
constexpr int kStepsOf = FloatGroupValues(kForm) / kLanes16;

// Step j of what a lane loaded.
template <WeightForm kForm>
__device__ inline float WeightAt(const Bytes16& loaded, int j) {
  if constexpr (kForm == WeightForm::kF32) {
    return BitsFloat(loaded.word[j]);
  } else {
    const std::uint32_t word = loaded.word[j / 2];
    const std::uint32_t half = j % 2 == 0 ? word & 0xFFFFU : word >> 16;
    if constexpr (kForm == WeightForm::kBF16) return BitsFloat(half << 16);
    return HalfToFloat(static_cast<std::uint16_t>(half));
  }
}

// One lane of kRows weight rows times kColumns rows of activations.
template <WeightForm kForm, int kRows, int kColumns>
struct FloatLane {
  static constexpr int kSteps = kStepsOf<kForm>;
  static constexpr int kGroup = FloatGroupValues(kForm);

  int lane;
  const std::byte* w[kRows];
  const float* x[kColumns];
  float acc[kRows][kColumns];

  // kGroups groups from value `at`, all of whose values there are; all loads go out first.
  template <int kGroups>
  __device__ void AddWhole(std::int64_t at) {
    Loaded loaded[kGroups];
#pragma unroll
    for (int i = 0; i < kGroups; ++i) Load<true>(at + i * kGroup, 0, &loaded[i]);
#pragma unroll
    for (int i = 0; i < kGroups; ++i) AddSteps<true>(loaded[i], at + i * kGroup, 0);
  }
  // The last group of a row of k values. Lanes without a value in a step that others have one in
  // multiply zeros: a lane that holds -0 becomes +0 by it.
  __device__ void AddTail(std::int64_t at, std::int64_t k) {
    Loaded loaded;
    Load<false>(at, k, &loaded);
    AddSteps<false>(loaded, at, k);
  }

  struct Loaded {
    Bytes16 w[kRows];
    float x[kSteps][kColumns];
  };

  template <bool kWhole>
  __device__ void Load(std::int64_t at, std::int64_t k, Loaded* loaded) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      loaded->w[r] = LoadOnce16(w[r] + at / kGroup * kFloatGroupBytes + 16 * lane);
    }
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
      const std::int64_t i = at + kLanes16 * j + lane;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) loaded->x[j][c] = kWhole || i < k ? x[c][i] : 0.0F;
    }
  }

  template <bool kWhole>
  __device__ void AddSteps(const Loaded& loaded, std::int64_t at, std::int64_t k) {
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
      if (!kWhole && at + kLanes16 * j >= k) continue;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float weight = WeightAt<kForm>(loaded.w[r], j);
#pragma unroll
        for (int c = 0; c < kColumns; ++c) acc[r][c] = Fma(weight, loaded.x[j][c], acc[r][c]);
      }
    }
  }
};

template <WeightForm kForm, int kRows, int kColumns>
__global__ void __launch_bounds__(kThreads, 2) FloatKernel(const __grid_constant__ FloatArgs args) {
  constexpr int kGroup = FloatGroupValues(kForm);
  // Groups whose loads are under way together: where a thread has one output, they alone hide the
  // latency of memory.
  constexpr int kAhead = kRows * kColumns > 1 ? 1 : (kForm == WeightForm::kF32 ? 8 : 4);
  const MatmulParams& params = args.params;
  const int block = static_cast<int>(blockIdx.y);
  int m = 0;
  while (m + 1 < params.num_matrices && block >= args.first_block[m + 1]) ++m;
  const MatmulMatrix& matrix = params.matrices[m];
  const int half = static_cast<int>(threadIdx.x) / kLanes16;
  const std::int32_t first = ((block - args.first_block[m]) * kHalves + half) * kRows;

  AwaitPrevious();
  const RowBlock rows = FindRowBlock(params, static_cast<int>(blockIdx.x), kColumns);
  if (rows.count == 0) return;

  // Rows and columns that are not there are computed as the last ones, and not stored.
  FloatLane<kForm, kRows, kColumns> work = {};
  work.lane = static_cast<int>(threadIdx.x) % kLanes16;
  const std::byte* weights = matrix.w + rows.expert * matrix.expert_bytes;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    work.w[r] = weights + AtMost(first + r, matrix.n - 1) * TileBytes(kForm, params.k);
  }
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const std::int64_t x_row = XRow(params, rows.begin + AtMost(c, rows.count - 1));
    work.x[c] = reinterpret_cast<const float*>(
        matrix.x + x_row * ActivationLayoutOf(ActivationFormat::kF32, params.k).row_bytes);
  }
  std::int64_t at = 0;
  for (; at + kAhead * kGroup <= params.k; at += kAhead * kGroup) {
    work.template AddWhole<kAhead>(at);
  }
  for (; at + kGroup <= params.k; at += kGroup) work.template AddWhole<1>(at);
  if (at < params.k) work.AddTail(at, params.k);
  LetNextBegin();

#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const float sum = Sum16(work.acc[r][c]);
      // All lanes have the sum; each stores some.
      const bool stores = (r * kColumns + c) % kLanes16 == work.lane;
      if (stores && c < rows.count && first + r < matrix.n) {
        Store(matrix, YRow(params, rows.begin + c), first + r, sum);
      }
    }
  }
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
