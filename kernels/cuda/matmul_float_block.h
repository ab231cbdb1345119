// The product of float weights by one block, for the kernels that begin with it: by the 16 lanes of
// the numerics. Half a warp holds the lanes of a few outputs, each thread one lane of each, and
// reads weights and activations of four or eight steps at once. Device code.
#ifndef MILLRACE_KERNELS_CUDA_MATMUL_FLOAT_BLOCK_H_
#define MILLRACE_KERNELS_CUDA_MATMUL_FLOAT_BLOCK_H_

#include <cstdint>

#include "kernels/cuda/activations.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/lanes16.h"
#include "kernels/cuda/matmul_rows.h"

namespace millrace::cuda {

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

  // What a lane needs of kGroups groups: weights, and activations.
  template <int kGroups>
  struct Weights {
    Bytes16 w[kGroups][kRows];
  };
  struct Values {
    float x[kSteps][kColumns];
  };

  // Groups from value `at` on, of those before `end`.
  template <int kGroups>
  __device__ void LoadWeights(std::int64_t at, std::int64_t end, Weights<kGroups>* loaded) const {
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      if (at + i * kGroup >= end) continue;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        loaded->w[i][r] = LoadOnce16(w[r] + (at / kGroup + i) * kFloatGroupBytes + 16 * lane);
      }
    }
  }

  // The same groups, all of whose values there are; where there are all groups, all loads of
  // activations go out first.
  template <int kGroups>
  __device__ void AddGroups(const Weights<kGroups>& weights, std::int64_t at, std::int64_t end) {
    if (kGroups > 1 && at + kGroups * kGroup > end) {
#pragma unroll
      for (int i = 0; i < kGroups; ++i) {
        if (at + i * kGroup >= end) continue;
        Values values;
        LoadValues<true>(at + i * kGroup, 0, &values);
        AddSteps<true>(weights.w[i], values, at + i * kGroup, 0);
      }
      return;
    }
    Values values[kGroups];
#pragma unroll
    for (int i = 0; i < kGroups; ++i) LoadValues<true>(at + i * kGroup, 0, &values[i]);
#pragma unroll
    for (int i = 0; i < kGroups; ++i) AddSteps<true>(weights.w[i], values[i], at + i * kGroup, 0);
  }
  // The last group of a row of k values. Lanes without a value in a step that others have one in
  // multiply zeros: a lane that holds -0 becomes +0 by it.
  __device__ void AddTail(std::int64_t at, std::int64_t k) {
    Weights<1> weights;
    Values values;
    LoadWeights<1>(at, k, &weights);
    LoadValues<false>(at, k, &values);
    AddSteps<false>(weights.w[0], values, at, k);
  }

  template <bool kWhole>
  __device__ void LoadValues(std::int64_t at, std::int64_t k, Values* loaded) const {
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
      const std::int64_t i = at + kLanes16 * j + lane;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) loaded->x[j][c] = kWhole || i < k ? x[c][i] : 0.0F;
    }
  }

  template <bool kWhole>
  __device__ void AddSteps(const Bytes16 (&weights)[kRows], const Values& values, std::int64_t at,
                           std::int64_t k) {
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
      if (!kWhole && at + kLanes16 * j >= k) continue;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float weight = WeightAt<kForm>(weights[r], j);
#pragma unroll
        for (int c = 0; c < kColumns; ++c) acc[r][c] = Fma(weight, values.x[j][c], acc[r][c]);
      }
    }
  }
};

// Bytes of shared memory that hold `columns` rows of activations of k values.
constexpr std::int64_t StagedBytes(int columns, std::int64_t k) {
  return columns * ActivationLayoutOf(ActivationFormat::kF32, k).row_bytes;
}

// Copies the rows of activations of a block to `staged`. All threads of the block; a barrier.
__device__ inline void StageRows(const MatmulParams& params, const MatmulMatrix& matrix,
                                 const RowBlock& rows, std::byte* staged) {
  const std::int64_t bytes = StagedBytes(1, params.k);
  for (int c = 0; c < rows.count; ++c) {
    const std::byte* from = matrix.x + XRow(params, rows.begin + c) * bytes;
    for (std::int64_t i = 16 * std::int64_t{threadIdx.x}; i < bytes;
         i += 16 * std::int64_t{blockDim.x}) {
      CopyAsync16(staged + c * bytes + i, from + i);
    }
  }
  CommitCopies();
  WaitCopies<0>();
  SyncBlock();
}

// Outputs [first, first + kRows) of the thread's half warp, for block `row_block` of kColumns rows
// of activations; awaits the kernel before. kAhead groups of weights are under way together, and of
// dense rows the first of them during that wait, since no kernel writes weights. Activations come
// through shared memory, StagedBytes from its begin on, where kStaged. False for the whole block
// where no rows are left for it. All threads of a block.
template <WeightForm kForm, int kRows, int kColumns, int kAhead, bool kStaged>
__device__ bool RunFloat(const MatmulParams& params, const MatmulMatrix& matrix, int row_block,
                         std::int32_t first) {
  using Lane = FloatLane<kForm, kRows, kColumns>;
  constexpr std::int64_t kAheadValues = kAhead * FloatGroupValues(kForm);
  Lane work = {};
  work.lane = static_cast<int>(threadIdx.x) % kLanes16;
  // Rows and columns that are not there are computed as the last ones, and not stored.
  const auto set_weights = [&](std::int32_t expert) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      work.w[r] = matrix.w + expert * matrix.expert_bytes +
                  AtMost(first + r, matrix.n - 1) * TileBytes(kForm, params.k);
    }
  };
  const bool dense = params.experts == nullptr && params.expert_offsets == nullptr;
  const std::int64_t whole = params.k / Lane::kGroup * Lane::kGroup;
  typename Lane::template Weights<kAhead> weights;
  if (dense) set_weights(0);
  if (dense && kAhead > 1) work.template LoadWeights<kAhead>(0, whole, &weights);
  AwaitPrevious();
  const RowBlock rows = FindRowBlock(params, row_block, kColumns);
  if (rows.count == 0) return false;
  if (!dense) set_weights(rows.expert);
  const std::int64_t row_bytes = StagedBytes(1, params.k);
  if constexpr (kStaged) StageRows(params, matrix, rows, BlockShared<std::byte>());
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const std::int32_t column = AtMost(c, rows.count - 1);
    const std::byte* row = kStaged ? BlockShared<std::byte>() + column * row_bytes
                                   : matrix.x + XRow(params, rows.begin + column) * row_bytes;
    work.x[c] = reinterpret_cast<const float*>(row);
  }
  for (std::int64_t at = 0; at < whole; at += kAheadValues) {
    const bool loaded = dense && kAhead > 1 && at == 0;
    if (!loaded) work.template LoadWeights<kAhead>(at, whole, &weights);
    work.template AddGroups<kAhead>(weights, at, whole);
  }
  if (whole < params.k) work.AddTail(whole, params.k);
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
  return true;
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_MATMUL_FLOAT_BLOCK_H_
