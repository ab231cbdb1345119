#include "kernels/cuda/matmul_vector.h"

#include <array>

#include "kernels/cuda/activations.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matmul_rows.h"
#include "kernels/cuda/matmul_unit.h"
#include "kernels/cuda/tail_block.h"
#include "kernels/cuda/vector_slots.h"

namespace millrace::cuda {
namespace {

constexpr int kMaxThreads = 256;
// Of 256 threads on a multiprocessor: 16 warps hide the latency of memory. The number also tells
// the compiler to spend registers on loads that are under way together, not on more blocks.
constexpr int kMinBlocks = 2;

struct VectorArgs {
  MatmulParams params;
  std::array<int, kMaxMatrices> first_block;  // of each matrix, in the grid's y
  int tiles;
  int splits;
  int pass_units;
};

// Who a thread is, and what its block works on.
struct Place {
  int lane, g, t;
  int tile_of_block;
  int split;
  std::int64_t tile;  // of the matrix
  bool works;         // the whole warp has weights to multiply
  RowBlock rows;
};

template <WeightForm kForm, int kColumns>
struct VectorBlock {
  static constexpr FormTraits kTraits = TraitsOf(kForm);
  static constexpr int kSteps = kTraits.blocks;  // float steps of a unit
  using Slot = std::conditional_t<kTraits.mins, VectorMinSlot, VectorSlot>;
  // Outputs of a thread: 16 rows of kColumns columns for each `splits` warps.
  static constexpr int kOutputs = kColumns == 1 ? 1 : kColumns / 2;

  const VectorArgs& args;
  const MatmulMatrix& matrix;
  Place place;
  ActivationLayout layout;
  std::int64_t units;
  std::byte* columns;  // shared: [kColumns][VectorColumnBytes]
  Slot* slots;         // shared: [tiles][pass_units][kSteps][kColumns][VectorColumnSlots]

  __device__ Slot* SlotOf(int tile, int unit, int step, int column, int row) const {
    const int at = ((tile * args.pass_units + unit) * kSteps + step) * kColumns + column;
    return slots + at * VectorColumnSlots(kForm, kColumns) + row;
  }

  __device__ const std::byte* Column(int column) const {
    return matrix.x + XRow(args.params, place.rows.begin + column) * layout.row_bytes;
  }

  // Begins to copy the scales (and the sums, where the float steps need them) of all columns.
  __device__ void CopyScales() const {
    const std::int64_t bytes = VectorScaleBytes(kForm, args.params.k);
    const int pieces = static_cast<int>(bytes / 16);
    for (int i = static_cast<int>(threadIdx.x); i < place.rows.count * pieces;
         i += static_cast<int>(blockDim.x)) {
      const int column = i / pieces;
      const int piece = i % pieces * 16;
      std::byte* to = columns + column * VectorColumnBytes(kForm, args.params.k) + piece;
      CopyAsync16(to, Column(column) + layout.scales + piece);
      if constexpr (kSteps > 1 && kTraits.mins) {
        CopyAsync16(to + bytes, Column(column) + layout.sums + piece);
      }
    }
    CommitCopies();
  }

  __device__ void WriteSlot(int unit, int step, int column, int r, const UnitScales<kForm>& scales,
                            int isum, int msum) const {
    Slot* slot = SlotOf(place.tile_of_block, unit, step, column, place.g + 8 * r);
    Slot value;
    // Registers have no index at run time: both are taken, one is kept.
    value.d = r == 0 ? scales.d[0][step] : scales.d[1][step];
    value.isum = static_cast<float>(isum);
    if constexpr (kTraits.mins) {
      const float m = r == 0 ? scales.m[0][step] : scales.m[1][step];
      value.m = kSteps == 1 ? -m : m;
      value.msum = static_cast<float>(msum);
    }
    *slot = value;
  }

  // Whether the integers of a unit need the sums of its activations.
  static constexpr bool kSums = kSteps == 1 && kTraits.mins;

  // What a thread needs of its column for a unit, all asked for at once.
  struct ColumnUnit {
    ColumnWords words;
    Bytes16 sums[2];     // kColumns == 1
    SumWords sum_words;  // else
  };
  __device__ ColumnUnit LoadColumn(const std::byte* x, std::int64_t u) const {
    ColumnUnit column = {};
    if (kColumns > 1 && x == nullptr) return column;
    const auto* q = reinterpret_cast<const Bytes16*>(x + u * kUnitValues + 16 * place.t);
#pragma unroll
    for (int j = 0; j < 4; ++j) column.words[j] = q[4 * j];
    if constexpr (kSums) {
      const std::byte* sums =
          x + layout.sums + u * std::int64_t{sizeof(ActivationSums)} + SumsOffset<kForm>();
      if constexpr (kColumns == 1) {
#pragma unroll
        for (int i = 0; i < SumsBytes<kForm>() / 16; ++i) {
          column.sums[i] = reinterpret_cast<const Bytes16*>(sums)[i];
        }
      } else {
        column.sum_words = LoadSumWords<kForm>(sums, place.t);
      }
    }
    return column;
  }

  // The integers of one unit, `unit` of the pass.
  __device__ void Multiply(const RawUnit<kForm>& raw, const ColumnUnit& column, int unit) const {
    UnitScales<kForm> scales;
    UnpackUnitScales<kForm>(raw, &scales);
    if constexpr (kColumns == 1) {
      MultiplyOne(raw, scales, column, unit);
    } else {
      MultiplyEight(raw, scales, column, unit);
    }
  }

  __device__ void MultiplyOne(const RawUnit<kForm>& raw, const UnitScales<kForm>& scales,
                              const ColumnUnit& column, int unit) const {
    int isum[kSteps == 1 ? 1 : 4];
    MultiplyColumn<kForm>(raw, scales, column.words, place.t, isum);
    if constexpr (kSteps == 1) {
      const int r = place.t % 2;
      int msum = 0;
      if constexpr (kSums) msum = MultiplyMinsOfRow<kForm>(scales, r, column.sums);
      if (place.t < 2) WriteSlot(unit, 0, 0, r, scales, isum[0], msum);
    } else {
      // This thread's are blocks 2t and 2t + 1 of both rows.
#pragma unroll
      for (int b = 0; b < kSteps; ++b) {
        if (b / 2 != place.t) continue;
        WriteSlot(unit, b, 0, 0, scales, isum[b % 2], 0);
        WriteSlot(unit, b, 0, 1, scales, isum[2 + b % 2], 0);
      }
    }
  }

  __device__ void MultiplyEight(const RawUnit<kForm>& raw, const UnitScales<kForm>& scales,
                                const ColumnUnit& column, int unit) const {
    std::uint32_t a[kUnitBlocks][4];
#pragma unroll
    for (int b = 0; b < kUnitBlocks; ++b) UnpackBlock<kForm>(raw, b, a[b]);
    int isum[kSteps][4];
    MultiplyColumns<kForm>(a, scales, column.words, isum);
    int msum[4] = {0, 0, 0, 0};
    if constexpr (kSums) {
      std::uint32_t mins[2];
      MinFragment<kForm>(scales, place.t, mins);
      MultiplyMins(mins, column.sum_words, msum);
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int own = 2 * place.t + i % 2;
        if (own < place.rows.count) {
          WriteSlot(unit, step, own, i / 2, scales, isum[step][i], msum[i]);
        }
      }
    }
  }

  // ---- The float steps: output o of this thread ------------------------------------------------

  struct Output {
    int tile, column, row;
    bool is_one;
  };
  __device__ Output OutputOf(int o) const {
    const int at = static_cast<int>(threadIdx.x) + o * static_cast<int>(blockDim.x);
    Output out;
    out.row = at % kTileRows;
    out.column = at / kTileRows % kColumns;
    out.tile = at / (kTileRows * kColumns);
    out.is_one = out.tile < args.tiles && out.column < place.rows.count &&
                 (place.tile - place.tile_of_block + out.tile) * kTileRows + out.row < matrix.n;
    return out;
  }

  // Units [first, last) of the pass that begins at `first`.
  __device__ float Accumulate(const Output& out, std::int64_t first, std::int64_t last,
                              float acc) const {
    const std::int64_t bytes = VectorScaleBytes(kForm, args.params.k);
    const auto* scale = reinterpret_cast<const float*>(
        columns + out.column * VectorColumnBytes(kForm, args.params.k));
    const auto* sum =
        reinterpret_cast<const std::int32_t*>(reinterpret_cast<const std::byte*>(scale) + bytes);
    for (std::int64_t u = first; u < last; ++u) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const std::int64_t at = u * kSteps + step;
        if (kSteps > 1 && at * 32 >= args.params.k) continue;  // padding
        const Slot slot = *SlotOf(out.tile, static_cast<int>(u - first), step, out.column, out.row);
        acc = Fma(slot.d * scale[at], slot.isum, acc);
        if constexpr (kTraits.mins) {
          const float msum = kSteps > 1 ? static_cast<float>(sum[at]) : slot.msum;
          acc = Fma(slot.m * scale[at], msum, acc);
        }
      }
    }
    return acc;
  }
};

template <WeightForm kForm, int kColumns>
__device__ void RunVector(const VectorArgs& args, const MatmulMatrix& matrix,
                          std::int64_t first_tile) {
  using Block = VectorBlock<kForm, kColumns>;
  const MatmulParams& params = args.params;
  constexpr int kUnitBytes = UnitLayoutOf(kForm).bytes();
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const std::int64_t units = UnitCount(params.k);

  Place place;
  place.lane = static_cast<int>(threadIdx.x) % kWarpSize;
  place.g = place.lane / 4;
  place.t = place.lane % 4;
  place.tile_of_block = warp / args.splits;
  place.split = warp % args.splits;
  place.tile = first_tile + place.tile_of_block;
  place.works = place.tile * kTileRows < matrix.n;
  const std::byte* weights =
      matrix.w + place.tile * units * kUnitBytes + std::int64_t{place.split} * kUnitBytes;

  // No kernel writes weights: where it is known which, they are asked for before the wait.
  RawUnit<kForm> next;
  const bool known = params.experts == nullptr;
  if (known && place.works && place.split < units) LoadUnit<kForm>(weights, place.lane, &next);
  AwaitPrevious();
  place.rows = PlainRowBlock(params, static_cast<int>(blockIdx.x), kColumns);
  if (place.rows.count == 0) return;
  if (!known) {
    weights += place.rows.expert * matrix.expert_bytes;
    if (place.works && place.split < units) LoadUnit<kForm>(weights, place.lane, &next);
  }

  auto* shared = BlockShared<std::byte>();
  const Block block = {args,
                       matrix,
                       place,
                       ActivationLayoutOf(Block::kTraits.activation(), params.k),
                       units,
                       shared,
                       reinterpret_cast<typename Block::Slot*>(
                           shared + kColumns * VectorColumnBytes(kForm, params.k))};
  block.CopyScales();
  const int own = kColumns == 1 ? 0 : place.g;
  const std::byte* x = own < place.rows.count ? block.Column(own) : nullptr;

  float acc[Block::kOutputs] = {};
  for (std::int64_t first = 0; first < units; first += args.pass_units) {
    const std::int64_t last = first + args.pass_units < units ? first + args.pass_units : units;
    if (place.works) {
      for (std::int64_t u = first + place.split; u < last; u += args.splits) {
        const auto column = block.LoadColumn(x, u);
        const RawUnit<kForm> raw = next;
        weights += std::int64_t{args.splits} * kUnitBytes;
        if (u + args.splits < units) LoadUnit<kForm>(weights, place.lane, &next);
        block.Multiply(raw, column, static_cast<int>(u - first));
      }
    }
    if (last == units) LetNextBegin();
    WaitCopies<0>();
    SyncBlock();
#pragma unroll
    for (int o = 0; o < Block::kOutputs; ++o) {
      const auto out = block.OutputOf(o);
      if (out.is_one) acc[o] = block.Accumulate(out, first, last, acc[o]);
    }
    if (last < units) SyncBlock();
  }
#pragma unroll
  for (int o = 0; o < Block::kOutputs; ++o) {
    const auto out = block.OutputOf(o);
    if (!out.is_one) continue;
    const std::int64_t i = (first_tile + out.tile) * kTileRows + out.row;
    Store(matrix, YRow(params, place.rows.begin + out.column), static_cast<std::int32_t>(i),
          acc[o]);
  }
}

template <WeightForm kFirst, WeightForm kSecond, int kColumns>
__global__ void __launch_bounds__(kMaxThreads, kMinBlocks)
    VectorKernel(const __grid_constant__ VectorArgs args, const __grid_constant__ TailArgs tail) {
  const MatrixBlock block = MatrixBlockOf(args.params, args.first_block);
  const MatmulMatrix& matrix = args.params.matrices[block.matrix];
  const std::int64_t first_tile = std::int64_t{block.index} * args.tiles;
  if (kFirst == kSecond || matrix.form == kFirst) {
    RunVector<kFirst, kColumns>(args, matrix, first_tile);
  } else {
    RunVector<kSecond, kColumns>(args, matrix, first_tile);
  }
  if (tail.groups > 0) RunTail(tail, kColumns);
}

struct VectorEntry {
  WeightForm first;
  WeightForm second;
  void (*one)(VectorArgs, TailArgs);
  void (*eight)(VectorArgs, TailArgs);
};

template <WeightForm kFirst, WeightForm kSecond = kFirst>
constexpr VectorEntry Entry() {
  return {kFirst, kSecond, VectorKernel<kFirst, kSecond, 1>, VectorKernel<kFirst, kSecond, 8>};
}

// Forms alone, and those that the usual mixes have side by side in q, k and v.
constexpr VectorEntry kEntries[] = {
    Entry<WeightForm::kQ4_K>(),
    Entry<WeightForm::kQ5_K>(),
    Entry<WeightForm::kQ6_K>(),
    Entry<WeightForm::kQ4_0>(),
    Entry<WeightForm::kQ4_1>(),
    Entry<WeightForm::kBytes32>(),
    Entry<WeightForm::kBytes32Min>(),
    Entry<WeightForm::kBytes16>(),
    Entry<WeightForm::kBytes16Min>(),
    Entry<WeightForm::kQ4_K, WeightForm::kQ6_K>(),
    Entry<WeightForm::kQ5_K, WeightForm::kQ6_K>(),
    Entry<WeightForm::kQ4_K, WeightForm::kQ5_K>(),
};

const VectorEntry* FindEntry(WeightForm first, WeightForm second) {
  for (const VectorEntry& entry : kEntries) {
    const bool same = entry.first == first && entry.second == second;
    const bool swapped = entry.first == second && entry.second == first;
    if (same || swapped) return &entry;
  }
  return nullptr;
}

// `blocks` are a matrix's, in the grid's y.
TailArgs TailArgsOf(const FusedTail& fused, const MatmulParams& params, const MatmulShape& shape,
                    const std::array<int, kMaxMatrices>& first_block,
                    const std::array<int, kMaxMatrices>& blocks) {
  TailArgs args;
  args.fused = fused;
  args.params = params;
  args.first_block = first_block;
  args.blocks = blocks;
  args.group_blocks = fused.shape.group_values / (shape.tiles * kTileRows);
  const bool side_by_side = fused.tail.kind == TailKind::kSwiglu;
  args.matrices_of_group = side_by_side ? params.num_matrices : 1;
  for (std::size_t m = 0; m < static_cast<std::size_t>(params.num_matrices); ++m) {
    args.first_group[m] = side_by_side ? 0 : args.groups;
    const int groups = (blocks[m] + args.group_blocks - 1) / args.group_blocks;
    args.groups = side_by_side ? groups : args.groups + groups;
  }
  return args;
}

}  // namespace

bool VectorServes(WeightForm first, WeightForm second) {
  return FindEntry(first, second) != nullptr;
}

cudaError_t LaunchMatmulVector(const MatmulParams& params, const MatmulShape& shape,
                               cudaStream_t stream, const FusedTail* tail) {
  VectorArgs args = {params, {}, shape.tiles, shape.splits, shape.pass_units};
  TailArgs tail_args;
  const WeightForm first = params.matrices[0].form;
  WeightForm second = first;
  std::int64_t shared_bytes = tail != nullptr ? tail->shape.shared_bytes : 0;
  int blocks = 0;
  std::array<int, kMaxMatrices> blocks_of = {};
  for (int m = 0; m < params.num_matrices; ++m) {
    const MatmulMatrix& matrix = params.matrices[static_cast<std::size_t>(m)];
    if (matrix.form != first) second = matrix.form;
    const std::int64_t bytes = VectorSharedBytes(matrix.form, params.k, shape);
    shared_bytes = bytes > shared_bytes ? bytes : shared_bytes;
    args.first_block[static_cast<std::size_t>(m)] = blocks;
    const int tiles = (matrix.n + kTileRows - 1) / kTileRows;
    blocks_of[static_cast<std::size_t>(m)] = (tiles + shape.tiles - 1) / shape.tiles;
    blocks += blocks_of[static_cast<std::size_t>(m)];
  }
  if (tail != nullptr) tail_args = TailArgsOf(*tail, params, shape, args.first_block, blocks_of);
  const VectorEntry* entry = FindEntry(first, second);
  const bool pairs = params.experts != nullptr;
  const bool columns_known = shape.columns == 1 || (shape.columns == 8 && !pairs);
  if (entry == nullptr || !columns_known || params.expert_offsets != nullptr) {
    return cudaErrorInvalidValue;
  }
  if (blocks == 0 || params.max_rows == 0) return cudaSuccess;
  LaunchShape launch;
  // Blocks that read the same weights are neighbours in time.
  launch.grid = dim3(static_cast<unsigned>((params.max_rows + shape.columns - 1) / shape.columns),
                     static_cast<unsigned>(blocks));
  launch.block = dim3(static_cast<unsigned>(kWarpSize * shape.tiles * shape.splits));
  launch.shared_bytes = static_cast<std::size_t>(shared_bytes);
  launch.chained = params.chained;
  return Launch(shape.columns == 1 ? entry->one : entry->eight, launch, stream, args, tail_args);
}

}  // namespace millrace::cuda
