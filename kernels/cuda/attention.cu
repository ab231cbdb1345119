// Partials of attention. A block of 128 threads takes up to kRows rows (query, head) of a unit and
// walks its partition twice, keys then values, in tiles of kKeys positions: bytes of the cache come
// into shared memory in the background, some tiles ahead, and are widened to floats once for all
// rows. Scores of the whole partition lie in shared memory between the two walks. Two rows are too
// few for that: then every thread widens what it multiplies, and values are read twice.
//
// The order of operations is that of docs/numerics.md, whichever thread does them: the 16 lanes of
// a dot product and their tree are one thread's (of two rows: two threads'), the 16 lanes of the
// softmax are half a warp, and an element of the output is one thread's chain over ascending
// positions.
//
// Where a tail is asked for, the block that writes the last entry of a part of a token merges it.
// What the tail needs of shared memory lies where queries, tiles and scores were.
#include "kernels/cuda/attention.h"

#include <bit>

#include "kernels/cuda/attention_merge_block.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/exp.h"
#include "kernels/cuda/kv_rows.h"
#include "kernels/cuda/lanes16.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/quantize.h"
#include "kernels/cuda/rope_append.h"

namespace millrace::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpSize;
// In f16 shared memory leaves no room for more on a multiprocessor, so registers need not either.
constexpr int kMinBlocks = 2;
// Positions that are copied together: blocks of the cache are multiples of it, and so their bytes
// follow each other and are a multiple of 16.
constexpr int kRun = 16;
// Elements of a head that the threads' outputs cover at once; larger heads take two passes.
constexpr int kPassDims = 128;

// How threads share the scores (a thread kScoreRows x kScoreKeys of a tile) and the outputs
// (kOutRows x kOutDims of a pass): larger shares read less of shared memory for a product. And how
// many tiles' raw bytes of heads of 128 are in shared memory or on their way there: as many as
// leave a block below 99 KiB in f16 (AttentionSharedBytes).
template <AttentionTile kTileOf, int kStagesOf, int kScoreRowsOf, int kScoreKeysOf, int kOutRowsOf,
          int kOutDimsOf>
struct Tile {
  static constexpr int kRows = Info(kTileOf).rows;
  static constexpr int kKeys = Info(kTileOf).keys;
  static constexpr int kStages = kStagesOf;
  static constexpr int kScoreRows = kScoreRowsOf;
  static constexpr int kScoreKeys = kScoreKeysOf;
  static constexpr int kOutRows = kOutRowsOf;
  static constexpr int kOutDims = kOutDimsOf;
  static_assert(kRows / kScoreRows * (kKeys / kScoreKeys) == kThreads);
  static_assert(kRows / kOutRows * (kPassDims / kOutDims) == kThreads);
  // Whether threads read the cache's bytes as they are; no tile of floats then.
  static constexpr bool kDirect = kTileOf == AttentionTile::kFew;
  // Scores lie [position][row], padded so that the rows of a warp's positions meet in few banks; or
  // [row][position], so that a thread reads four positions of its row at once.
  static constexpr int kScoreStride = kDirect ? 1 : kRows + 4;
  static constexpr int kScoreRowStride = kDirect ? kKvPartition + 4 : 1;
  static constexpr int kScoreFloats =
      kDirect ? kRows * kScoreRowStride : kKvPartition * kScoreStride;
};
using Few = Tile<AttentionTile::kFew, 4, 1, 1, 1, 2>;
using Group = Tile<AttentionTile::kGroup, 2, 2, 2, 4, 2>;
using Many = Tile<AttentionTile::kMany, 3, 4, 2, 8, 4>;

// Stages for heads of `dim`, or of any size (0): those may be large, so there are few.
template <typename T>
__host__ __device__ constexpr int StagesFor(int dim) {
  return dim == kPassDims ? T::kStages : (T::kDirect ? 3 : 2);
}
// Tiles that are on their way when one is worked on: it still takes up its stage where its bytes
// are read as they are.
template <typename T>
__host__ __device__ constexpr int TilesAhead(int dim) {
  return T::kDirect ? StagesFor<T>(dim) - 1 : StagesFor<T>(dim);
}

// Bytes from row to row of what is copied. Rows that are read as they are lie a few banks apart,
// but for those that do not begin at 16 bytes: they are copied 16 at a time.
template <typename T>
__host__ __device__ constexpr int RawStride(int row_bytes) {
  return T::kDirect && row_bytes % 16 == 0 ? row_bytes + 16 : row_bytes;
}

// Rows of queries, keys and values in shared memory are this many floats apart: four banks from
// one row to the next, so that eight rows' 16 bytes are one access.
__host__ __device__ constexpr int RowStride(int dim) { return dim + 4; }

// Shared memory of a block, in this order.
template <typename T>
struct Space {
  float* q;         // [kRows][RowStride]
  float* tile;      // [kKeys][RowStride], unless kDirect
  float* scores;    // [kScoreFloats]
  std::byte* raw;   // [kStages][kKeys][RawStride] rows of the cache
  int* limits;      // [kRows] positions of the partition that a row sees
  int* queries;     // [kRows] its query: token * num_heads + head
  int* entries;     // [kRows] its entry in the partials; negative: it has but this one, kept here
  float* sums;      // [kRows][2] maximum and sum of its scores
  unsigned* whole;  // bit i: with row i of the block a part of a token is whole
};

template <typename T>
__host__ __device__ constexpr int TileFloats(int dim) {
  return T::kDirect ? 0 : T::kKeys * RowStride(dim);
}
template <typename T>
__host__ __device__ constexpr int RawBytes(int dim, int row_bytes) {
  return StagesFor<T>(dim) * T::kKeys * RawStride<T>(row_bytes);
}
// Of all that is free when the walks are done.
template <typename T>
constexpr std::size_t BytesOfWalks(int dim, int row_bytes) {
  const int floats = T::kRows * RowStride(dim) + TileFloats<T>(dim) + T::kScoreFloats;
  return static_cast<std::size_t>(floats) * sizeof(float) +
         static_cast<std::size_t>(RawBytes<T>(dim, row_bytes));
}
template <typename T>
constexpr std::size_t SharedBytes(int dim, int row_bytes) {
  return BytesOfWalks<T>(dim, row_bytes) + (5 * T::kRows + 1) * sizeof(int);
}

// Heads that the tail merges at a time, and where the entries lie that are kept in shared memory:
// behind the space of the merge, [kRows][dim + 2].
template <typename T>
__host__ __device__ constexpr int MostMerged(int part) {
  return part < T::kRows ? T::kRows : part;
}
template <typename T>
__host__ __device__ constexpr int FloatsBeforeKept(int part, int dim) {
  return MergeFloats(MostMerged<T>(part), dim);
}
template <typename T>
constexpr std::size_t TailBytes(int part, int dim) {
  return static_cast<std::size_t>(FloatsBeforeKept<T>(part, dim) + T::kRows * (dim + 2)) *
         sizeof(float);
}

template <typename T>
__device__ Space<T> SpaceOf(int dim, int row_bytes) {
  Space<T> s;
  s.q = BlockShared<float>();
  s.tile = s.q + T::kRows * RowStride(dim);
  s.scores = s.tile + TileFloats<T>(dim);
  s.raw = reinterpret_cast<std::byte*>(s.scores + T::kScoreFloats);
  s.limits = reinterpret_cast<int*>(s.raw + RawBytes<T>(dim, row_bytes));
  s.queries = s.limits + T::kRows;
  s.entries = s.queries + T::kRows;
  s.sums = reinterpret_cast<float*>(s.entries + T::kRows);
  s.whole = reinterpret_cast<unsigned*>(s.sums + 2 * T::kRows);
  return s;
}

// What a block works on.
struct Rows {
  const std::int32_t* table;  // blocks of the partition
  int kv_head;
  int count;      // rows of the block
  int positions;  // of the partition, that some row of the block sees
  int part;       // heads that are merged as a whole, 0: none here
};

// Looks up the block's rows: those from `first` on of the unit. Rows that are not there repeat the
// last one, whose work then is done in vain and not written.
template <typename T>
__device__ void FindRows(const AttentionParams& p, const AttentionUnit& unit, int first,
                         const Rows& rows, const Space<T>& s) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= T::kRows) return;
  const int group = p.num_heads / p.kv.layout.num_kv_heads;
  const int row = first + (thread < rows.count ? thread : rows.count - 1);
  const int token = p.queries[unit.begin + row / group];
  const int head = rows.kv_head * group + row % group;
  const int seen = p.positions[token] - unit.partition * kKvPartition + 1;
  s.limits[thread] = seen < 0 ? 0 : (seen > kKvPartition ? kKvPartition : seen);
  s.queries[thread] = token * p.num_heads + head;
  s.entries[thread] = (p.partial_start[token] + unit.partition) * p.num_heads + head;
  // A token's only partition, and all heads that it is merged with are rows of this block.
  const bool kept = rows.part > 0 && T::kRows % rows.part == 0 && group % rows.part == 0 &&
                    unit.partition == 0 && seen <= kKvPartition;
  if (kept) s.entries[thread] = -1;
}

template <typename T>
__device__ void LoadQueries(const AttentionParams& p, int dim, const Space<T>& s) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int row = thread / kWarpSize; row < T::kRows; row += kWarps) {
    const int query = s.queries[row];
    const float* q = p.q + query / p.num_heads * p.q_stride + query % p.num_heads * dim;
    for (int i = 4 * (thread % kWarpSize); i < dim; i += 4 * kWarpSize) {
      *reinterpret_cast<Float4*>(s.q + row * RowStride(dim) + i) =
          *reinterpret_cast<const Float4*>(q + i);
    }
  }
}

template <typename T>
__device__ int MostSeen(const Space<T>& s) {
  int most = 0;
  for (int row = 0; row < T::kRows; ++row) most = s.limits[row] > most ? s.limits[row] : most;
  return most;
}

// The tiles of the two walks are numbered on: keys, then values.
template <typename T>
__device__ int TilesOfWalk(const Rows& rows) {
  return (rows.positions + T::kKeys - 1) / T::kKeys;
}

// Where a warp's run of a tile lies: 16 positions of one block of the cache, shared with the warps
// that take the same run. No tile, or nothing of it seen: no position.
struct Run {
  int tile;
  int position;  // in the partition, or -1
  int block;     // of the cache
};

// Touches no entry of the table beyond what is seen.
template <typename T>
__device__ Run RunOf(const AttentionParams& p, const Rows& rows, int tile) {
  const int walk = TilesOfWalk<T>(rows);
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int position =
      (tile >= walk ? tile - walk : tile) * T::kKeys + warp % (T::kKeys / kRun) * kRun;
  if (tile >= 2 * walk || position >= rows.positions) return {tile, -1, 0};
  return {tile, position, rows.table[position / p.kv.layout.block_size]};
}

// Begins to copy a tile's bytes.
template <typename Kv, typename T, int kStages>
__device__ void StageTile(const AttentionParams& p, const Rows& rows, const Run& run, int dim,
                          const Space<T>& s) {
  constexpr int kRuns = T::kKeys / kRun;
  constexpr int kThreadsOfRun = kThreads / kRuns;
  if (run.position >= 0) {
    const int row_bytes = Kv::RowBytes(dim);
    const bool values = run.tile >= TilesOfWalk<T>(rows);
    const std::byte* from = KvRows(p.kv, run.block, rows.kv_head, values) +
                            run.position % p.kv.layout.block_size * row_bytes;
    const int stride = RawStride<T>(row_bytes);
    std::byte* to = s.raw + (run.tile % kStages * T::kKeys + run.position % T::kKeys) * stride;
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize + warp / kRuns * kWarpSize;
    const int pieces = stride > row_bytes ? row_bytes / 16 : row_bytes;  // that lie together
    for (int i = lane; i < row_bytes; i += kThreadsOfRun) {  // 16 rows are 16 * row_bytes
      CopyAsync16(to + i / pieces * stride + 16 * (i % pieces), from + 16 * i);
    }
  }
  CommitCopies();
}

// From raw bytes to floats; a warp takes a row.
template <typename Kv, typename T, int kStages>
__device__ void WidenTile(const Rows& rows, int tile, int dim, const Space<T>& s) {
  const int walk = TilesOfWalk<T>(rows);
  const int left = rows.positions - (tile >= walk ? tile - walk : tile) * T::kKeys;
  const int count = left < T::kKeys ? left : T::kKeys;
  const int row_bytes = Kv::RowBytes(dim);
  const std::byte* raw = s.raw + tile % kStages * T::kKeys * row_bytes;
  for (int key = static_cast<int>(threadIdx.x) / kWarpSize; key < count; key += kWarps) {
    for (int i = 4 * (static_cast<int>(threadIdx.x) % kWarpSize); i < dim; i += 4 * kWarpSize) {
      *reinterpret_cast<Float4*>(s.tile + key * RowStride(dim) + i) =
          Kv::Widen(raw + key * row_bytes, i);
    }
  }
}

// acc[r][k][e] += the products of lanes 4 * quarter + e of the dot product of row r and key k.
template <typename T>
__device__ void AddQuarter(const float* const (&q)[T::kScoreRows],
                           const float* const (&keys)[T::kScoreKeys], int dim, int quarter,
                           float (&acc)[T::kScoreRows][T::kScoreKeys][4]) {
#pragma unroll 4
  for (int i = 4 * quarter; i < dim; i += kLanes16) {
    Float4 x[T::kScoreRows];
    Float4 y[T::kScoreKeys];
#pragma unroll
    for (int r = 0; r < T::kScoreRows; ++r) x[r] = *reinterpret_cast<const Float4*>(q[r] + i);
#pragma unroll
    for (int k = 0; k < T::kScoreKeys; ++k) y[k] = *reinterpret_cast<const Float4*>(keys[k] + i);
#pragma unroll
    for (int r = 0; r < T::kScoreRows; ++r) {
#pragma unroll
      for (int k = 0; k < T::kScoreKeys; ++k) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          acc[r][k][e] = Fma(x[r].value[e], y[k].value[e], acc[r][k][e]);
        }
      }
    }
  }
}

// Which rows and keys of a tile are a thread's: r + i * kRows / kScoreRows, k + i * kKeys /
// kScoreKeys. A warp takes neighbouring keys and few rows: what it reads at once are few rows of
// shared memory in different banks.
template <typename T>
struct ScoreShare {
  static constexpr int kRowThreads = T::kRows / T::kScoreRows;
  static constexpr int kKeyThreads = T::kKeys / T::kScoreKeys;
  static constexpr int kWarpRows = kRowThreads < 4 ? kRowThreads : 4;
  static constexpr int kWarpKeys = kWarpSize / kWarpRows;
  static constexpr int kWarpsByKeys = kKeyThreads / kWarpKeys;
  int row;
  int key;

  static __device__ ScoreShare Own() {
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    return {warp / kWarpsByKeys * kWarpRows + lane / kWarpKeys,
            warp % kWarpsByKeys * kWarpKeys + lane % kWarpKeys};
  }
};

// Dot products of all rows with the keys of the tile, scaled. Those of keys behind what is seen
// are of anything and are not read.
template <typename T>
__device__ void ScoreTile(float scale, int begin, int dim, const Space<T>& s) {
  using Share = ScoreShare<T>;
  const Share own = Share::Own();
  const float* q[T::kScoreRows];
  const float* keys[T::kScoreKeys];
#pragma unroll
  for (int r = 0; r < T::kScoreRows; ++r) {
    q[r] = s.q + (own.row + r * Share::kRowThreads) * RowStride(dim);
  }
#pragma unroll
  for (int k = 0; k < T::kScoreKeys; ++k) {
    keys[k] = s.tile + (own.key + k * Share::kKeyThreads) * RowStride(dim);
  }
  // Quarters in such an order that each meets the one 8 lanes apart, then 4: the tree's order.
  float even[T::kScoreRows][T::kScoreKeys][4] = {};
  float odd[T::kScoreRows][T::kScoreKeys][4] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    auto& sum = half == 0 ? even : odd;
    AddQuarter<T>(q, keys, dim, half, sum);
    float upper[T::kScoreRows][T::kScoreKeys][4] = {};
    AddQuarter<T>(q, keys, dim, half + 2, upper);
#pragma unroll
    for (int r = 0; r < T::kScoreRows; ++r) {
#pragma unroll
      for (int k = 0; k < T::kScoreKeys; ++k) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[r][k][e] = sum[r][k][e] + upper[r][k][e];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < T::kScoreRows; ++r) {
#pragma unroll
    for (int k = 0; k < T::kScoreKeys; ++k) {
      float lane[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) lane[e] = even[r][k][e] + odd[r][k][e];
      const float dot = (lane[0] + lane[2]) + (lane[1] + lane[3]);
      const int key = begin + own.key + k * Share::kKeyThreads;
      s.scores[key * T::kScoreStride + own.row + r * Share::kRowThreads] = dot * scale;
    }
  }
}

// Scores of one row to exp(score - max) in place, by half a warp; all 32 threads.
template <typename T>
__device__ void SoftmaxRow(float* scores, int seen, int lane, float* max_and_sum) {
  constexpr int kPerLane = kKvPartition / kLanes16;
  const float lowest = BitsFloat(0xFF800000U);  // minus infinity
  float score[kPerLane];
  float max = lowest;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int position = kLanes16 * j + lane;
    score[j] = position < seen ? scores[position * T::kScoreStride] : lowest;
    // What fills up the last vector of 16 takes part, and lets a NaN go.
    if (kLanes16 * j < seen) max = MaxOf(max, score[j]);
  }
  max = Max16(max);
  float sum = 0.0F;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int position = kLanes16 * j + lane;
    if (position >= seen) continue;
    const float weight = Exp(score[j] - max);
    scores[position * T::kScoreStride] = weight;
    sum = sum + weight;
  }
  sum = Sum16(sum);
  if (lane == 0) {
    max_and_sum[0] = max;
    max_and_sum[1] = sum;
  }
}

// The bytes of a tile, as they are.
template <typename Kv, typename T, int kStages>
__device__ const std::byte* RawTile(int tile, int dim, const Space<T>& s) {
  return s.raw + tile % kStages * T::kKeys * RawStride<T>(Kv::RowBytes(dim));
}

// ScoreTile of two rows from the tile's bytes: two threads a key, one of them the even quarters of
// the 16 lanes, one the odd ones.
template <typename Kv, typename T>
__device__ void ScoreRaw(const std::byte* raw, float scale, int begin, int dim, const Space<T>& s) {
  static_assert(T::kRows == 2 && 2 * T::kKeys == kThreads);
  const int key = static_cast<int>(threadIdx.x) / 2;
  const int half = static_cast<int>(threadIdx.x) % 2;
  const std::byte* row = raw + key * RawStride<T>(Kv::RowBytes(dim));
  float sum[2][2][4] = {};  // [quarter][row][lane]
#pragma unroll 4
  for (int i = 4 * half; i < dim; i += kLanes16) {
#pragma unroll
    for (int quarter = 0; quarter < 2; ++quarter) {
      const int at = i + 8 * quarter;
      const Float4 y = Kv::Widen(row, at);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const Float4 x = *reinterpret_cast<const Float4*>(s.q + r * RowStride(dim) + at);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sum[quarter][r][e] = Fma(x.value[e], y.value[e], sum[quarter][r][e]);
        }
      }
    }
  }
  // This thread ends row `half`; a sum of two does not depend on their order.
  float lane[4];
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const float first = sum[0][0][e] + sum[1][0][e];
    const float second = sum[0][1][e] + sum[1][1][e];
    lane[e] = (half == 0 ? first : second) + ShuffleXor(half == 0 ? second : first, 1);
  }
  const float dot = (lane[0] + lane[2]) + (lane[1] + lane[3]);
  s.scores[half * T::kScoreRowStride + begin + key] = dot * scale;
}

template <typename T>
__device__ void Softmax(const Space<T>& s) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes16;
  // Two rows a warp, and kRows is even: both halves of a warp go through together.
  for (int row = static_cast<int>(threadIdx.x) / kLanes16; row < T::kRows;
       row += kThreads / kLanes16) {
    SoftmaxRow<T>(s.scores + row * T::kScoreRowStride, s.limits[row], lane, s.sums + 2 * row);
  }
}

// A thread's outputs: rows row .. row + kOutRows - 1, elements dim + kPassDims * pass ..
template <typename T, int kPasses>
struct Outputs {
  int row;
  int dim;
  float value[kPasses][T::kOutRows][T::kOutDims];
};

template <typename T, int kPasses>
__device__ Outputs<T, kPasses> ZeroOutputs() {
  constexpr int kDimThreads = kPassDims / T::kOutDims;
  Outputs<T, kPasses> out = {};
  out.row = static_cast<int>(threadIdx.x) / kDimThreads * T::kOutRows;
  out.dim = static_cast<int>(threadIdx.x) % kDimThreads * T::kOutDims;
  return out;
}

// The weights of a position for rows row .. row + kOutRows - 1.
template <int kCount>
struct alignas(kCount % 4 == 0 ? 16 : 4 * kCount) FloatsOf {
  float value[kCount];
};

// out += weight * value for positions [from, to) of the tile; each row as far as it sees when
// kCheck. A weight of 0 would not do for what it does not see, since that value may be NaN.
template <typename T, int kPasses, bool kCheck>
__device__ void AddPositions(const float* weights, const float* tile, int stride, int dim, int from,
                             int to, const int* seen, Outputs<T, kPasses>* out) {
  using Weights = FloatsOf<T::kOutRows % 4 == 0 ? 4 : T::kOutRows>;
  constexpr int kWeightVectors = T::kOutRows % 4 == 0 ? T::kOutRows / 4 : 1;
  using Values = FloatsOf<T::kOutDims>;
#pragma unroll 4
  for (int j = from; j < to; ++j) {
    Weights weight[kWeightVectors];
#pragma unroll
    for (int v = 0; v < kWeightVectors; ++v) {
      weight[v] = reinterpret_cast<const Weights*>(weights + j * T::kScoreStride)[v];
    }
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      if (pass * kPassDims + out->dim >= dim) continue;
      const Values value =
          *reinterpret_cast<const Values*>(tile + j * stride + pass * kPassDims + out->dim);
#pragma unroll
      for (int r = 0; r < T::kOutRows; ++r) {
        if (kCheck && j >= seen[r]) continue;
        const float w =
            weight[r * kWeightVectors / T::kOutRows].value[r % (T::kOutRows / kWeightVectors)];
#pragma unroll
        for (int e = 0; e < T::kOutDims; ++e) {
          out->value[pass][r][e] = Fma(w, value.value[e], out->value[pass][r][e]);
        }
      }
    }
  }
}

// Adds a tile of values: positions [begin, begin + kKeys).
template <typename T, int kPasses>
__device__ void AddTile(int begin, int dim, const Space<T>& s, Outputs<T, kPasses>* out) {
  int seen[T::kOutRows];
  int all = T::kKeys;  // positions of the tile that all of the thread's rows see, or some
  int some = 0;
#pragma unroll
  for (int r = 0; r < T::kOutRows; ++r) {
    const int left = s.limits[out->row + r] - begin;
    seen[r] = left < 0 ? 0 : (left > T::kKeys ? T::kKeys : left);
    all = seen[r] < all ? seen[r] : all;
    some = seen[r] > some ? seen[r] : some;
  }
  const float* weights = s.scores + begin * T::kScoreStride + out->row;
  const int stride = RowStride(dim);
  AddPositions<T, kPasses, false>(weights, s.tile, stride, dim, 0, all, seen, out);
  AddPositions<T, kPasses, true>(weights, s.tile, stride, dim, all, some, seen, out);
}

// AddTile of one row and two elements a thread from the tile's bytes.
template <typename Kv, typename T, int kPasses>
__device__ void AddRaw(const std::byte* raw, int begin, int dim, const Space<T>& s,
                       Outputs<T, kPasses>* out) {
  static_assert(T::kOutRows == 1 && T::kOutDims == 2 && T::kScoreStride == 1);
  const int stride = RawStride<T>(Kv::RowBytes(dim));
  const float* weights = s.scores + out->row * T::kScoreRowStride + begin;
  const int left = s.limits[out->row] - begin;
  const int seen = left < T::kKeys ? left : T::kKeys;
  const auto add = [&](int position, float weight) {
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int at = pass * kPassDims + out->dim;
      if (at >= dim) continue;
      const Float2 value = Kv::WidenTwo(raw + position * stride, at);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        out->value[pass][0][e] = Fma(weight, value.value[e], out->value[pass][0][e]);
      }
    }
  };
  int j = 0;
#pragma unroll 4
  for (; j + 4 <= seen; j += 4) {
    const Float4 weight = *reinterpret_cast<const Float4*>(weights + j);
#pragma unroll
    for (int e = 0; e < 4; ++e) add(j + e, weight.value[e]);
  }
  for (; j < seen; ++j) add(j, weights[j]);
}

// Where a row's entry goes. Those that are kept here lie where the walks worked.
template <typename T>
__device__ float* EntryOf(const AttentionParams& p, const Rows& rows, int row, int dim,
                          const Space<T>& s) {
  const int entry = s.entries[row];
  if (entry >= 0) return p.partials + std::int64_t{entry} * (dim + 2);
  return BlockShared<float>() + FloatsBeforeKept<T>(rows.part, dim) + row * (dim + 2);
}

template <typename T, int kPasses>
__device__ void WriteEntries(const AttentionParams& p, const Rows& rows, int dim, const Space<T>& s,
                             const Outputs<T, kPasses>& out) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < rows.count) {
    float* entry = EntryOf(p, rows, thread, dim, s);
    entry[dim] = s.sums[2 * thread];
    entry[dim + 1] = s.sums[2 * thread + 1];
  }
#pragma unroll
  for (int r = 0; r < T::kOutRows; ++r) {
    if (out.row + r >= rows.count) continue;
    float* entry = EntryOf(p, rows, out.row + r, dim, s);
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int at = pass * kPassDims + out.dim;
      if (at >= dim) continue;
      // Entries are an even number of floats, so pairs are aligned.
      if constexpr (T::kOutDims % 2 == 0) {
#pragma unroll
        for (int e = 0; e < T::kOutDims; e += 2) {
          *reinterpret_cast<FloatsOf<2>*>(entry + at +
                                          e) = {{out.value[pass][r][e], out.value[pass][r][e + 1]}};
        }
      } else {
        for (int e = 0; e < T::kOutDims; ++e) entry[at + e] = out.value[pass][r][e];
      }
    }
  }
}

// Counts the entries that the block wrote. A part of a token is whole when all of its heads have
// one for each partition that the token sees; bit i of the result says that one is with row i.
template <typename T>
__device__ unsigned CountEntries(const AttentionParams& p, const Rows& rows, const Space<T>& s) {
  static_assert(T::kRows <= kWarpSize);
  const int row = static_cast<int>(threadIdx.x);
  SyncBlock();  // what the block's threads wrote happens before what the first warp does now
  if (row < kWarpSize) {
    FenceDevice();
    bool whole = false;
    if (row < rows.count && s.limits[row] > 0) {
      const int query = s.queries[row];
      if (s.entries[row] < 0) {
        whole = query % rows.part == 0;
      } else {
        const int partitions = p.positions[query / p.num_heads] / kKvPartition + 1;
        std::int32_t* counter = p.tail.counters + query / rows.part;
        whole = AtomicAdd(counter, 1) == partitions * rows.part - 1;
        if (whole) *counter = 0;  // for the next kernel: nobody else of this one comes
      }
    }
    if (whole) FenceDevice();  // no later read of the block is older than the count
    const unsigned all = Ballot(whole);
    if (row == 0) *s.whole = all;
  }
  SyncBlock();
  return *s.whole;
}

// The part that is whole with the first of the rows `whole`, and those behind it of the same token,
// as many as there is room for; takes their rows away.
template <typename T>
__device__ MergeHeads TakeParts(const AttentionParams& p, const Rows& rows, int dim,
                                const Space<T>& s, unsigned* whole) {
  const auto next_row = [whole] { return std::popcount((*whole & (0U - *whole)) - 1U); };
  const int row = next_row();
  const int first = s.queries[row] / rows.part;  // of all tokens' parts
  const int parts_of_token = p.num_heads / rows.part;
  const int room = MostMerged<T>(rows.part) / rows.part;
  const int left = parts_of_token - first % parts_of_token;
  const int most = room < left ? room : left;
  int parts = 0;
  do {
    *whole &= *whole - 1U;
    ++parts;
  } while (*whole != 0 && parts < most && s.queries[next_row()] / rows.part == first + parts);
  MergeHeads heads;
  heads.token = first / parts_of_token;
  heads.first = first % parts_of_token * rows.part;
  heads.count = parts * rows.part;
  heads.stride = std::int64_t{p.num_heads} * (dim + 2);
  heads.partitions = p.positions[heads.token] / kKvPartition + 1;
  heads.entries = s.entries[row] < 0 ? EntryOf(p, rows, row, dim, s)
                                     : p.partials + p.partial_start[heads.token] * heads.stride +
                                           heads.first * (dim + 2);
  return heads;
}

// Merges what is whole with the block's entries.
template <typename T>
__device__ void MergeWhole(const AttentionParams& p, const Rows& rows, int dim, const Space<T>& s) {
  unsigned whole = CountEntries<T>(p, rows, s);
  while (whole != 0) {
    const MergeHeads heads = TakeParts<T>(p, rows, dim, s, &whole);
    const MergeSpace space = MergeSpaceAt(BlockShared<float>(), heads.count, dim);
    BeginMerge<kThreads>(heads.count, dim, space);
    MergePartitions<kThreads>(heads, dim, space);
    FinishMerge<kThreads>(heads, p.num_heads, dim, p.tail.out, space);
    if (whole != 0) SyncBlock();  // the space is used anew
  }
}

// kDim is head_dim, or 0 where that is known at the launch only; `part` as Rows has it.
template <typename Kv, typename T, int kDim>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    AttentionKernel(AttentionParams p, int part) {
  const int index = static_cast<int>(blockIdx.x);
  const int first = static_cast<int>(blockIdx.z) * T::kRows;
  const bool exists = index < *p.num_units;
  const AttentionUnit unit = exists ? p.units[index] : AttentionUnit{};
  const int left = unit.count * (p.num_heads / p.kv.layout.num_kv_heads) - first;
  if (left <= 0) {
    AwaitPrevious();
    return;
  }
  constexpr int kPasses = kDim != 0 && kDim <= kPassDims ? 1 : kMaxHeadDim / kPassDims;
  constexpr int kStages = StagesFor<T>(kDim);
  constexpr int kAhead = TilesAhead<T>(kDim);
  const int dim = kDim != 0 ? kDim : p.kv.layout.head_dim;
  const Space<T> s = SpaceOf<T>(dim, Kv::RowBytes(dim));
  Rows rows;
  rows.table = p.block_table + p.block_table_start[unit.sequence] +
               unit.partition * (kKvPartition / p.kv.layout.block_size);
  rows.kv_head = static_cast<int>(blockIdx.y);
  rows.count = left < T::kRows ? left : T::kRows;
  rows.part = part;
  FindRows<T>(p, unit, first, rows, s);
  SyncBlock();
  rows.positions = MostSeen<T>(s);
  Run runs[kAhead];
#pragma unroll
  for (int tile = 0; tile < kAhead; ++tile) runs[tile] = RunOf<T>(p, rows, tile);
  AwaitPrevious();

  const int walk = TilesOfWalk<T>(rows);
#pragma unroll
  for (const Run& run : runs) StageTile<Kv, T, kStages>(p, rows, run, dim, s);
  LoadQueries<T>(p, dim, s);
  Outputs<T, kPasses> out = ZeroOutputs<T, kPasses>();
  for (int tile = 0; tile < 2 * walk; ++tile) {
    const Run next = RunOf<T>(p, rows, tile + kAhead);
    WaitCopies<kAhead - 1>();
    SyncBlock();  // the bytes are there, and nobody works on the tile before
    if constexpr (T::kDirect) {
      StageTile<Kv, T, kStages>(p, rows, next, dim, s);
      const std::byte* raw = RawTile<Kv, T, kStages>(tile, dim, s);
      if (tile == walk) {
        Softmax<T>(s);
        SyncBlock();
      }
      if (tile < walk) {
        ScoreRaw<Kv, T>(raw, p.scale, tile * T::kKeys, dim, s);
      } else {
        AddRaw<Kv, T, kPasses>(raw, (tile - walk) * T::kKeys, dim, s, &out);
      }
    } else {
      if (tile == walk) Softmax<T>(s);
      WidenTile<Kv, T, kStages>(rows, tile, dim, s);
      SyncBlock();
      StageTile<Kv, T, kStages>(p, rows, next, dim, s);
      if (tile < walk) {
        ScoreTile<T>(p.scale, tile * T::kKeys, dim, s);
      } else {
        AddTile<T, kPasses>((tile - walk) * T::kKeys, dim, s, &out);
      }
    }
  }
  LetNextBegin();
  if (walk == 0) Softmax<T>(s);  // nothing is seen: -infinity and 0
  SyncBlock();                   // the sums are there, and the tiles are free
  WriteEntries<T, kPasses>(p, rows, dim, s, out);
  if (part > 0) MergeWhole<T>(p, rows, dim, s);
}

template <typename F>
cudaError_t WithTile(AttentionTile tile, const F& f) {
  switch (tile) {
    case AttentionTile::kFew:
      return f(Few{});
    case AttentionTile::kGroup:
      return f(Group{});
    case AttentionTile::kMany:
      return f(Many{});
  }
  return cudaErrorInvalidValue;
}

std::int64_t BlocksOf(const AttentionWork& work, AttentionTile tile) {
  const std::int32_t rows = work.queries_per_unit * work.group;
  const std::int32_t in_tile = Info(tile).rows;
  return work.units * work.num_kv_heads * ((rows + in_tile - 1) / in_tile);
}

// A block that counts its entries waits until they can be seen and for the counters, about a
// microsecond. With more blocks than these behind each other that is more than a launch; so many at
// once fit a multiprocessor.
constexpr std::int64_t kTailWaves = 4;
constexpr std::int64_t kBlocksAtOnce = 2;

// Whether what a tail needs of shared memory fits where the walks worked.
bool HasRoomForTail(AttentionTile tile, KvDType dtype, int num_heads, int dim) {
  bool fits = false;
  WithTile(tile, [&]<typename T>(T) {
    fits = TailBytes<T>(HeadsOfMerge(num_heads, dim), dim) <=
           BytesOfWalks<T>(dim, static_cast<int>(KvRowBytes(dtype, dim)));
    return cudaSuccess;
  });
  return fits;
}

}  // namespace

std::size_t AttentionSharedBytes(AttentionTile tile, KvDType dtype, std::int32_t head_dim) {
  std::size_t bytes = 0;
  WithTile(tile, [&]<typename T>(T) {
    bytes = SharedBytes<T>(head_dim, static_cast<int>(KvRowBytes(dtype, head_dim)));
    return cudaSuccess;
  });
  return bytes;
}

AttentionTile ChooseAttentionTile(const AttentionWork& work, std::int32_t multiprocessors) {
  const std::int32_t rows = work.queries_per_unit * work.group;
  const auto fills = [&](AttentionTile tile) { return BlocksOf(work, tile) >= multiprocessors; };
  // Up to half of a tile's rows may be in vain: a smaller tile reads more for each.
  const auto suits = [&](AttentionTile tile) { return 2 * rows >= Info(tile).rows; };
  for (const AttentionTile tile : {AttentionTile::kMany, AttentionTile::kGroup}) {
    if (suits(tile) && fills(tile)) return tile;
  }
  return AttentionTile::kFew;
}

AttentionTailChoice ChooseAttentionTail(const AttentionTailWork& work) {
  if (!work.allowed) return {false, "switched off"};
  if (work.tokens > kMaxTokensOfAttentionTail) {
    return {false, "many tokens: a launch is little beside them, and their merge fills the GPU"};
  }
  if (work.tile == AttentionTile::kMany) {
    return {false, "tiles of many queries: one block would merge them all, one after the other"};
  }
  if (BlocksOf(work.work, work.tile) > kTailWaves * kBlocksAtOnce * work.multiprocessors) {
    return {false, "many blocks: all would wait for their counters"};
  }
  const std::int32_t num_heads = work.work.group * work.work.num_kv_heads;
  if (!HasRoomForTail(work.tile, work.dtype, num_heads, work.head_dim)) {
    return {false, "so many heads are merged together that a block has no room for them"};
  }
  if (AttentionTailCounters(work.tokens, num_heads, work.head_dim) > work.num_counters) {
    return {false, "more parts than counters"};
  }
  return {true, "few tokens: whoever writes a part's last entry merges it, a launch less"};
}

std::int64_t AttentionTailCounters(std::int32_t tokens, std::int32_t num_heads,
                                   std::int32_t head_dim) {
  return std::int64_t{tokens} * (num_heads / HeadsOfMerge(num_heads, head_dim));
}

cudaError_t LaunchAttention(const AttentionParams& params, cudaStream_t stream) {
  const KvLayout& layout = params.kv.layout;
  if (!CanAttend(layout.dtype, layout.head_dim) || layout.num_kv_heads <= 0 ||
      params.num_heads % layout.num_kv_heads != 0 || layout.block_size % kRun != 0 ||
      kKvPartition % layout.block_size != 0) {
    return cudaErrorInvalidValue;
  }
  int part = 0;
  if (params.tail.counters != nullptr) {
    if (!HasRoomForTail(params.tile, layout.dtype, params.num_heads, layout.head_dim)) {
      return cudaErrorInvalidValue;
    }
    part = HeadsOfMerge(params.num_heads, layout.head_dim);
  }
  const std::int32_t rows = params.max_queries * (params.num_heads / layout.num_kv_heads);
  const std::int32_t in_tile = Info(params.tile).rows;
  const LaunchShape shape = {
      dim3(static_cast<unsigned>(params.max_units), static_cast<unsigned>(layout.num_kv_heads),
           static_cast<unsigned>((rows + in_tile - 1) / in_tile)),
      dim3(kThreads), AttentionSharedBytes(params.tile, layout.dtype, layout.head_dim),
      params.chained};
  return WithKvType(layout.dtype, [&]<typename Kv>(Kv) {
    return WithTile(params.tile, [&]<typename T>(T) {
      if (layout.head_dim == kPassDims) {
        return Launch(AttentionKernel<Kv, T, kPassDims>, shape, stream, params, part);
      }
      return Launch(AttentionKernel<Kv, T, 0>, shape, stream, params, part);
    });
  });
}

}  // namespace millrace::cuda
