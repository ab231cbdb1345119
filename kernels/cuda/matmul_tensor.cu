#include "kernels/cuda/matmul_tensor.h"

#include <array>

#include "kernels/cuda/activations.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matmul_rows.h"
#include "kernels/cuda/matmul_unit.h"

namespace millrace::cuda {
namespace {

// Units of activations on their way or in use: two copies hide behind one that is multiplied.
constexpr int kStages = 3;
constexpr int kColumnsOfMma = 8;

// Blocks of a multiprocessor that the compiler makes room for in registers: for few columns memory
// is what takes time, and 16 or 12 warps hide its latency. The forms whose every 32 values have a
// minimum would spill by it.
constexpr int MinBlocks(WeightForm form, int columns) {
  const FormTraits traits = TraitsOf(form);
  if (columns > 32 || (traits.blocks > 1 && traits.mins)) return 1;
  return columns == 16 ? 4 : 3;
}

struct TensorArgs {
  MatmulParams params;
  std::array<int, kMaxMatrices> first_block;  // of each matrix, in the grid's y
};

// A column's floats and sums of a unit, beside its 256 bytes of q.
template <WeightForm kForm>
struct Side {
  static constexpr FormTraits kTraits = TraitsOf(kForm);
  static constexpr int kSteps = kTraits.blocks;
  // kQ8x256: the 16 bytes with the unit's scale and those of three neighbours; kQ8x32: 8 scales.
  static constexpr int kScaleBytes = kSteps == 1 ? 16 : 32;
  static constexpr int kSumBytes = !kTraits.mins ? 0 : (kSteps == 1 ? SumsBytes<kForm>() : 32);
  static constexpr int kBytes = kScaleBytes + kSumBytes;
  // An odd number of 16 bytes from column to column, so that those that a warp reads at once lie in
  // different banks.
  static constexpr int kPieces = (kBytes / 16) | 1;
};

template <WeightForm kForm, int kColumns>
struct Stage {
  Bytes16 q[kColumns][kUnitValues / 16];
  Bytes16 side[kColumns][Side<kForm>::kPieces];
};

template <WeightForm kForm, int kColumns>
struct TensorShared {
  Stage<kForm, kColumns> stages[kStages];
  const std::byte* rows[kColumns];  // of x
};

// Where piece `piece` of a column's q lies: columns next to each other would otherwise lie in the
// same banks, so every other one has its halves of 64 bytes swapped.
__device__ inline int PieceOf(int column, int piece) { return piece ^ ((column % 2) << 2); }

// Begins to copy a unit of all columns.
template <WeightForm kForm, int kColumns, int kThreads>
__device__ inline void CopyUnit(TensorShared<kForm, kColumns>* shared,
                                const ActivationLayout& layout, int count, std::int64_t u) {
  using Sides = Side<kForm>;
  Stage<kForm, kColumns>& stage = shared->stages[u % kStages];
  const int thread = static_cast<int>(threadIdx.x);
  constexpr int kPieces = kUnitValues / 16;
#pragma unroll
  for (int first = 0; first < kColumns * kPieces; first += kThreads) {
    const int column = (first + thread) / kPieces;
    const int piece = thread % kPieces;
    if (column >= count) continue;
    CopyAsync16(&stage.q[column][PieceOf(column, piece)],
                shared->rows[column] + u * kUnitValues + 16 * piece);
  }
  constexpr int kSides = Sides::kBytes / 16;
  constexpr int kScales = Sides::kScaleBytes / 16;
#pragma unroll
  for (int first = 0; first < kColumns * kSides; first += kThreads) {
    const int column = (first + thread) / kSides;
    const int side = (first + thread) % kSides;
    if (column >= count) continue;
    std::int64_t from;
    if (side < kScales) {
      from = layout.scales + (Sides::kSteps == 1 ? u / 4 * 16 : u * 32 + 16 * side);
    } else if (Sides::kSteps == 1) {
      from = layout.sums + u * std::int64_t{sizeof(ActivationSums)} + SumsOffset<kForm>() +
             16 * (side - kScales);
    } else {
      from = layout.sums + u * 32 + 16 * (side - kScales);
    }
    CopyAsync16(&stage.side[column][side], shared->rows[column] + from);
  }
}

template <WeightForm kForm, int kColumns>
struct TensorWarp {
  static constexpr FormTraits kTraits = TraitsOf(kForm);
  static constexpr int kSteps = kTraits.blocks;
  static constexpr int kGroups = kColumns / kColumnsOfMma;

  int g, t;
  float acc[kGroups][4];  // i as in MmaS8K32: rows g and g + 8, columns 2t and 2t + 1 of a group

  // One unit, `left` of whose float steps count.
  __device__ void Multiply(const RawUnit<kForm>& raw, const Stage<kForm, kColumns>& stage,
                           std::int64_t u, int steps, int count) {
    UnitScales<kForm> scales;
    UnpackUnitScales<kForm>(raw, &scales);
    std::uint32_t a[kUnitBlocks][4];
#pragma unroll
    for (int b = 0; b < kUnitBlocks; ++b) UnpackBlock<kForm>(raw, b, a[b]);
    std::uint32_t mins[2] = {0, 0};
    if constexpr (kSteps == 1 && kTraits.mins) MinFragment<kForm>(scales, t, mins);
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      if (group * kColumnsOfMma >= count) continue;
      const int column = group * kColumnsOfMma + g;
      ColumnWords x;
#pragma unroll
      for (int j = 0; j < 4; ++j) x[j] = stage.q[column][PieceOf(column, 4 * j + t)];
      int isum[kSteps][4];
      MultiplyColumns<kForm>(a, scales, x, isum);
      if constexpr (kSteps == 1) {
        int msum[4] = {0, 0, 0, 0};
        if constexpr (kTraits.mins) {
          const auto* sums = reinterpret_cast<const std::byte*>(&stage.side[column][1]);
          MultiplyMins(mins, LoadSumWords<kForm>(sums, t), msum);
        }
        AddUnit(scales, stage, u, isum[0], msum, group);
      } else {
        AddBlocks(scales, stage, steps, isum, group);
      }
    }
  }

  // The float steps of a unit whose type has blocks of 256.
  __device__ void AddUnit(const UnitScales<kForm>& scales, const Stage<kForm, kColumns>& stage,
                          std::int64_t u, const int (&isum)[4], const int (&msum)[4], int group) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = group * kColumnsOfMma + 2 * t + i % 2;
      const float scale = reinterpret_cast<const float*>(stage.side[column])[u % 4];
      const float d = scales.d[i / 2][0] * scale;
      acc[group][i] = Fma(d, static_cast<float>(isum[i]), acc[group][i]);
      if constexpr (kTraits.mins) {
        const float m = scales.m[i / 2][0] * scale;
        acc[group][i] = Fma(-m, static_cast<float>(msum[i]), acc[group][i]);
      }
    }
  }

  // Those of 8 blocks of 32.
  __device__ void AddBlocks(const UnitScales<kForm>& scales, const Stage<kForm, kColumns>& stage,
                            int steps, const int (&isum)[kSteps][4], int group) {
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int column = group * kColumnsOfMma + 2 * t + side;
      const auto* scale = reinterpret_cast<const float*>(stage.side[column]);
      const auto* sum = reinterpret_cast<const std::int32_t*>(scale + kSteps);
#pragma unroll
      for (int b = 0; b < kSteps; ++b) {
        if (b >= steps) continue;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          float& value = acc[group][2 * r + side];
          value = Fma(scales.d[r][b] * scale[b], static_cast<float>(isum[b][2 * r + side]), value);
          if constexpr (kTraits.mins) {
            value = Fma(scales.m[r][b] * scale[b], static_cast<float>(sum[b]), value);
          }
        }
      }
    }
  }
};

template <WeightForm kForm, int kColumns, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarpSize, MinBlocks(kForm, kColumns))
    TensorKernel(const __grid_constant__ TensorArgs args) {
  using Shared = TensorShared<kForm, kColumns>;
  constexpr int kThreads = kWarps * kWarpSize;
  constexpr int kUnitBytes = UnitLayoutOf(kForm).bytes();
  constexpr FormTraits kTraits = TraitsOf(kForm);
  const MatmulParams& params = args.params;
  const MatrixBlock block = MatrixBlockOf(params, args.first_block);
  const MatmulMatrix& matrix = params.matrices[block.matrix];
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const std::int64_t tile = std::int64_t{block.index} * kWarps + warp;
  const bool works = tile * kTileRows < matrix.n;
  const std::int64_t units = UnitCount(params.k);
  const std::byte* weights = matrix.w + tile * units * kUnitBytes;

  // No kernel writes weights: where it is known which, they are asked for before the wait.
  RawUnit<kForm> next;
  const bool known = params.expert_offsets == nullptr;
  if (known && works) LoadUnit<kForm>(weights, lane, &next);
  AwaitPrevious();
  const RowBlock rows = FindRowBlock(params, static_cast<int>(blockIdx.x), kColumns);
  if (rows.count == 0) return;
  if (!known) {
    weights += rows.expert * matrix.expert_bytes;
    if (works) LoadUnit<kForm>(weights, lane, &next);
  }

  auto* shared = BlockShared<Shared>();
  const ActivationLayout layout = ActivationLayoutOf(kTraits.activation(), params.k);
  for (int c = static_cast<int>(threadIdx.x); c < rows.count; c += kThreads) {
    shared->rows[c] = matrix.x + XRow(params, rows.begin + c) * layout.row_bytes;
  }
  SyncBlock();
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < units) CopyUnit<kForm, kColumns, kThreads>(shared, layout, rows.count, stage);
    CommitCopies();
  }

  TensorWarp<kForm, kColumns> work = {lane / 4, lane % 4, {}};
  for (std::int64_t u = 0; u < units; ++u) {
    // One group of copies a unit, empty ones at the end: this unit's has arrived.
    WaitCopies<kStages - 2>();
    SyncBlock();  // ..everyone's, and everyone is done with the stage that is filled next
    if (u + kStages - 1 < units) {
      CopyUnit<kForm, kColumns, kThreads>(shared, layout, rows.count, u + kStages - 1);
    }
    CommitCopies();
    if (!works) continue;
    const RawUnit<kForm> raw = next;
    weights += kUnitBytes;
    if (u + 1 < units) {
      LoadUnit<kForm>(weights, lane, &next);
    } else {
      LetNextBegin();
    }
    const std::int64_t blocks_left = (params.k - u * kUnitValues) / 32;
    work.Multiply(raw, shared->stages[u % kStages], u, static_cast<int>(blocks_left), rows.count);
  }

#pragma unroll
  for (int group = 0; group < kColumns / kColumnsOfMma; ++group) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = group * kColumnsOfMma + 2 * work.t + i % 2;
      const std::int64_t row = tile * kTileRows + work.g + 8 * (i / 2);
      if (column < rows.count && row < matrix.n) {
        Store(matrix, YRow(params, rows.begin + column), static_cast<std::int32_t>(row),
              work.acc[group][i]);
      }
    }
  }
}

struct TensorEntry {
  void (*kernel)(TensorArgs);
  int columns;
  int warps;
  std::size_t shared_bytes;
};
// Widths of a form.
using TensorEntries = std::array<TensorEntry, 3>;

template <WeightForm kForm, int kColumns, int kWarps>
constexpr TensorEntry Entry() {
  return {TensorKernel<kForm, kColumns, kWarps>, kColumns, kWarps,
          sizeof(TensorShared<kForm, kColumns>)};
}
template <WeightForm kForm>
constexpr TensorEntries Entries() {
  return {{Entry<kForm, 16, 4>(), Entry<kForm, 32, 4>(), Entry<kForm, 64, 8>()}};
}

// By WeightForm.
constexpr std::array<TensorEntries, kQuantisedForms> kEntries = {{
    Entries<WeightForm::kQ4_K>(),
    Entries<WeightForm::kQ5_K>(),
    Entries<WeightForm::kQ6_K>(),
    Entries<WeightForm::kQ4_0>(),
    Entries<WeightForm::kQ4_1>(),
    Entries<WeightForm::kBytes32>(),
    Entries<WeightForm::kBytes32Min>(),
    Entries<WeightForm::kBytes16>(),
    Entries<WeightForm::kBytes16Min>(),
}};

const TensorEntry* FindEntry(WeightForm form, const MatmulShape& shape) {
  if (!IsQuantised(form)) return nullptr;
  for (const TensorEntry& entry : kEntries[static_cast<std::size_t>(form)]) {
    if (entry.columns == shape.columns && entry.warps == shape.tiles) return &entry;
  }
  return nullptr;
}

}  // namespace

cudaError_t LaunchMatmulTensor(const MatmulParams& params, const MatmulShape& shape,
                               cudaStream_t stream) {
  const WeightForm form = params.matrices[0].form;
  const TensorEntry* entry = FindEntry(form, shape);
  if (entry == nullptr || params.experts != nullptr) return cudaErrorInvalidValue;
  TensorArgs args = {params, {}};
  int blocks = 0;
  for (int m = 0; m < params.num_matrices; ++m) {
    const MatmulMatrix& matrix = params.matrices[static_cast<std::size_t>(m)];
    if (matrix.form != form) return cudaErrorInvalidValue;
    args.first_block[static_cast<std::size_t>(m)] = blocks;
    blocks += (matrix.n + kTileRows * entry->warps - 1) / (kTileRows * entry->warps);
  }
  const int num_experts = params.expert_offsets != nullptr ? params.num_experts : 0;
  const std::int64_t row_blocks = MaxRowBlocks(params.max_rows, num_experts, entry->columns);
  if (blocks == 0 || row_blocks == 0) return cudaSuccess;
  LaunchShape launch;
  // Blocks that read the same weights are neighbours in time.
  launch.grid = dim3(static_cast<unsigned>(row_blocks), static_cast<unsigned>(blocks));
  launch.block = dim3(static_cast<unsigned>(kWarpSize * entry->warps));
  launch.shared_bytes = entry->shared_bytes;
  launch.chained = params.chained;
  return Launch(entry->kernel, launch, stream, args);
}

}  // namespace millrace::cuda
