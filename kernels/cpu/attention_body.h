// Attention over the paged KV cache for any lanes type; the definition is in
// kernels/cpu/attention.h. Internal to kernels/cpu; what is no template is static, so that every
// level has its own copy.
//
// A unit's query rows (query, head) are taken kAttentionRows at a time. For each batch the
// partition is walked twice, keys then values; scores of the whole partition lie between the two
// walks. For many rows that goes in tiles of kTile positions that are widened to f32 once and stay
// in the first-level cache. Few rows (kDirectRows) take keys and values from the cache as they
// are multiplied: to store a tile would take as long as to use it. Widening is exact and padding is
// zeros, so neither changes a bit.
#ifndef MILLRACE_KERNELS_CPU_ATTENTION_BODY_H_
#define MILLRACE_KERNELS_CPU_ATTENTION_BODY_H_

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/exp_body.h"
#include "kernels/fp8.h"
#include "kernels/kv_quantize.h"
#include "kernels/quant_blocks.h"

namespace millrace::cpu {

inline constexpr int kTile = 32;
inline constexpr int kMaxHeadDim = 256;
// Not a power of two, so that rows do not compete for the same cache sets.
inline constexpr int kScoreStride = kKvPartition + 16;

// Up to so many rows do without a tile. Halves and floats are widened by one instruction, the
// others by too many to do it twice.
template <typename L, typename T>
inline constexpr int kDirectRows =
    std::is_same_v<T, HalfBits> || std::is_same_v<T, float> ? L::kDirectRows : 1;

// About 426 KiB on the stack. Rows of q, o and tile are `dim` floats apart: head_dim rounded up to
// 32, filled with zeros.
struct AttentionScratch {
  alignas(64) float q[kAttentionRows * kMaxHeadDim];
  alignas(64) float o[kAttentionRows * kMaxHeadDim];
  alignas(64) float tile[kTile * kMaxHeadDim];
  alignas(64) float scores[kAttentionRows * kScoreStride];
  float max[kAttentionRows];
  float sum[kAttentionRows];
  int limit[kAttentionRows];  // positions of this partition that the row sees; ascending
  int num_rows;
  int head_dim;
  int dim;
};

template <typename L>
typename L::Reg LoadElements(const float* p, int n) {
  return n >= 16 ? L::Load(p) : L::LoadTail(p, n, 0.0F);
}
template <typename L>
typename L::Reg LoadElements(const HalfBits* p, int n) {
  return n >= 16 ? L::LoadHalf(p) : L::LoadHalfTail(p, n);
}
template <typename L>
typename L::Reg LoadElements(const Fp8* p, int n) {
  return n >= 16 ? L::LoadFp8(p) : L::LoadFp8Tail(p, n);
}
template <typename L>
void StoreElements(float* p, int n, const typename L::Reg& value) {
  if (n >= 16) return L::Store(p, value);
  L::StoreTail(p, n, value);
}
template <typename L>
void StoreElements(HalfBits* p, int n, const typename L::Reg& value) {
  if (n >= 16) return L::StoreHalf(p, value);
  L::StoreHalfTail(p, n, value);
}

// Elements [i, i + 16) of a row of the cache of `n` elements, beyond which are zeros.
template <typename L, typename T>
typename L::Reg WidenElements(const T* row, int i, int n) {
  return LoadElements<L>(row + i, n - i);
}
template <typename L>
typename L::Reg WidenElements(const BlockQ8_0* row, int i, int) {
  const BlockQ8_0& block = row[i / 32];
  return L::Mul(L::LoadInt8(block.q + i % 32), L::SetHalf(block.d));
}

// Widens a row of `n` elements to f32 and fills it with zeros up to `dim`.
template <typename L, typename T>
void WidenRow(const T* row, int n, int dim, float* out) {
  int i = 0;
  for (; i < n; i += 16) L::Store(out + i, WidenElements<L>(row, i, n));
  for (; i < dim; i += 16) L::Store(out + i, L::Set1(0.0F));
}

// A block's scale is widened once for its two registers: 1.17 times as fast as one by one.
template <typename L>
void WidenRow(const BlockQ8_0* row, int n, int dim, float* out) {
  int i = 0;
  for (; i < n; i += 32) {
    const BlockQ8_0& block = row[i / 32];
    const typename L::Reg d = L::SetHalf(block.d);
    L::Store(out + i, L::Mul(L::LoadInt8(block.q), d));
    L::Store(out + i + 16, L::Mul(L::LoadInt8(block.q + 16), d));
  }
  for (; i < dim; i += 16) L::Store(out + i, L::Set1(0.0F));
}

// Writes a row of `n` values in the cache's type.
template <typename L, typename T>
void StoreRow(const float* row, int n, T* out) {
  for (int i = 0; i < n; i += 16) {
    StoreElements<L>(out + i, n - i, LoadElements<L>(row + i, n - i));
  }
}
template <typename L>
void StoreRow(const float* row, int n, BlockQ8_0* out) {
  QuantizeKvRow(row, n, out);
}
template <typename L>
void StoreRow(const float* row, int n, Fp8* out) {
  QuantizeKvRow(row, n, out);
}

template <typename L, typename T>
void AppendRow(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
               const float* key, const float* value) {
  const std::int64_t at = slot * kv.layout.row_bytes();
  StoreRow<L>(key, kv.layout.head_dim, reinterpret_cast<T*>(kv.keys(block, head) + at));
  StoreRow<L>(value, kv.layout.head_dim, reinterpret_cast<T*>(kv.values(block, head) + at));
}

// The floats of a row (query and head) from q's first or from those of what is laid out as q.
static inline std::int64_t QueryOffset(const AttentionPartialParams& p, int row) {
  const std::int32_t token = p.queries[row / p.group];
  return token * p.q_stride + std::int64_t{row % p.group} * p.kv.layout.head_dim;
}

template <typename L>
void LoadQueries(const AttentionPartialParams& p, int first_row, AttentionScratch* s) {
  for (int r = 0; r < s->num_rows; ++r) {
    WidenRow<L>(p.q + QueryOffset(p, first_row + r), s->head_dim, s->dim, s->q + r * s->dim);
  }
}

// What each row of the batch sees of the partition.
static inline void FindLimits(const AttentionPartialParams& p, int first_row, AttentionScratch* s) {
  for (int r = 0; r < s->num_rows; ++r) {
    const std::int32_t token = p.queries[(first_row + r) / p.group];
    const int seen = p.positions[token] - p.partition * kKvPartition + 1;
    s->limit[r] = seen < 0 ? 0 : (seen > kKvPartition ? kKvPartition : seen);
  }
}

// The key or value row of a position of the partition; rows of a block follow each other.
static inline const std::byte* KvRow(const AttentionPartialParams& p, bool values, int position) {
  const int at = p.partition * kKvPartition + position;
  const int block_size = p.kv.layout.block_size;
  const std::int32_t block = p.block_table[at / block_size];
  const std::byte* rows = values ? p.kv.values(block, p.kv_head) : p.kv.keys(block, p.kv_head);
  return rows + at % block_size * p.kv.layout.row_bytes();
}

// Where the row lies that is read kTile rows after this one: of the next tile, of the first tile of
// values, or of the next unit's keys. Blocks are short runs of memory, which the hardware's
// prefetcher does not follow. Null: nothing, or nothing that is known.
static inline const std::byte* RowAhead(const AttentionPartialParams& p, bool values, int position,
                                        int positions) {
  if (position + kTile < positions) return KvRow(p, values, position + kTile);
  const int first = position % kTile;
  if (!values) return first < positions ? KvRow(p, true, first) : nullptr;
  const bool known = p.next_keys != nullptr && first < p.kv.layout.block_size;
  return known ? p.next_keys + first * p.kv.layout.row_bytes() : nullptr;
}

// kLocality: 3 into the first level, 2 into the second.
template <int kLocality>
static void PrefetchRow(const std::byte* row, std::int64_t bytes) {
  for (std::int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at, 0, kLocality);
}

// Widens positions [begin, begin + count) of the partition, keys or values, into the tile. Touches
// no block and no entry of the table at or beyond `positions`.
template <typename L, typename T, bool kValues>
void LoadTile(const AttentionPartialParams& p, int begin, int count, int positions,
              AttentionScratch* s) {
  const int block_size = p.kv.layout.block_size;
  const std::int64_t row_bytes = p.kv.layout.row_bytes();
  int done = 0;
  while (done < count) {
    const int position = begin + done;
    const std::byte* row = KvRow(p, kValues, position);
    // A tile is a whole number of blocks or a part of one, so rows ahead are neighbours too.
    const std::byte* ahead = RowAhead(p, kValues, position, positions);
    const int in_block = block_size - position % block_size;
    const int run = in_block < count - done ? in_block : count - done;
    for (int i = 0; i < run; ++i) {
      if (ahead != nullptr) PrefetchRow<3>(ahead + i * row_bytes, row_bytes);
      WidenRow<L>(reinterpret_cast<const T*>(row + i * row_bytes), s->head_dim, s->dim,
                  s->tile + (done + i) * s->dim);
    }
    done += run;
  }
}

// Where keys or values come from: rows of the tile, `dim` floats apart ...
template <typename L>
struct TileRows {
  const float* tile;
  int dim;

  typename L::Reg Load(int row, int i) const { return L::Load(tile + row * dim + i); }
  void Prefetch(int, int) const {}
};

// ... or of the cache itself. Rows that are read kTile positions later are asked for piece by piece
// as these here are used, so that memory is busy all the time; into the second level, since the
// first one's places for what is under way are needed for what is read now.
template <typename L, typename T>
struct CacheRows {
  const std::byte* rows;
  const std::byte* ahead;
  std::int64_t row_bytes;

  typename L::Reg Load(int row, int i) const {
    return WidenElements<L>(reinterpret_cast<const T*>(rows + row * row_bytes), i, i + 16);
  }
  // Asks for elements [i, i + 32) of a row ahead.
  void Prefetch(int row, int i) const {
    constexpr std::int64_t kBytes =
        std::is_same_v<T, BlockQ8_0> ? sizeof(BlockQ8_0) : 32 * sizeof(T);
    const std::byte* const at = ahead + row * row_bytes + i / 32 * kBytes;
    PrefetchRow<2>(at, kBytes);
  }
};

// The rows from `position` on, and those that are read kTile positions later.
template <typename L, typename T>
CacheRows<L, T> RowsOfCache(const AttentionPartialParams& p, bool values, int position,
                            int positions) {
  const std::byte* const rows = KvRow(p, values, position);
  const std::byte* const ahead = RowAhead(p, values, position, positions);
  return {rows, ahead == nullptr ? rows : ahead, p.kv.layout.row_bytes()};
}

// Dot products of kRows query rows with the four keys from `key` on; scores [kRows][4],
// kScoreStride apart.
template <typename L, int kRows, typename Rows>
[[gnu::always_inline]] inline void ScoreBlock(const float* q, const Rows& keys, int key,
                                              int head_dim, int dim, float* scores) {
  using Reg = typename L::Reg;
  Reg acc[kRows][4];
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < 4; ++j) acc[r][j] = L::Set1(0.0F);
  }
  for (int i = 0; i < head_dim; i += 16) {
    Reg k[4];
    for (int j = 0; j < 4; ++j) k[j] = keys.Load(key + j, i);
    for (int r = 0; r < kRows; ++r) {
      const Reg x = L::Load(q + r * dim + i);
      for (int j = 0; j < 4; ++j) acc[r][j] = L::Fma(x, k[j], acc[r][j]);
    }
  }
  if constexpr (kRows == 4) {
    float* const out[4] = {scores, scores + kScoreStride, scores + 2 * kScoreStride,
                           scores + 3 * kScoreStride};
    L::Sum4x4(acc, out);
  } else {
    for (int r = 0; r < kRows; ++r) L::Sum4(acc[r], scores + r * kScoreStride);
  }
}

// Scores of rows [row, row + kRows) for the `count` keys that begin at `begin` of the partition;
// the last row sees the most. Up to three keys beyond them are read, whose scores nobody reads.
template <typename L, int kRows, typename Rows>
void ScoreRows(int row, int begin, int count, const Rows& keys, AttentionScratch* s) {
  const int seen = s->limit[row + kRows - 1] - begin;
  const int end = seen < count ? seen : count;
  for (int key = 0; key < end; key += 4) {
    // Once for all rows.
    for (int i = 0; row == 0 && i < s->head_dim; i += 32) {
      for (int j = 0; j < 4; ++j) keys.Prefetch(key + j, i);
    }
    ScoreBlock<L, kRows>(s->q + row * s->dim, keys, key, s->head_dim, s->dim,
                         s->scores + row * kScoreStride + begin + key);
  }
}

template <typename L, typename Rows>
void ScoreAllRows(int begin, int count, const Rows& keys, AttentionScratch* s) {
  int row = 0;
  for (; row + L::kScoreRows <= s->num_rows; row += L::kScoreRows) {
    ScoreRows<L, L::kScoreRows>(row, begin, count, keys, s);
  }
  for (; row < s->num_rows; ++row) ScoreRows<L, 1>(row, begin, count, keys, s);
}

// Calls f(begin, count, rows) for parts of the partition's `positions` keys or values, which lie in
// the tile or, each within a block, in the cache. The tile has zeros up to a multiple of four rows.
template <typename L, typename T, bool kValues, typename Function>
void ForParts(const AttentionPartialParams& p, int positions, AttentionScratch* s,
              const Function& f) {
  // Without a tile there is no room for padding.
  const bool directly = s->num_rows <= kDirectRows<L, T> && s->head_dim == s->dim;
  const int block_size = p.kv.layout.block_size;
  const int longest = directly && block_size < kTile ? block_size : kTile;
  for (int begin = 0; begin < positions; begin += longest) {
    const int count = positions - begin < longest ? positions - begin : longest;
    if (directly) {
      f(begin, count, RowsOfCache<L, T>(p, kValues, begin, positions));
      continue;
    }
    LoadTile<L, T, kValues>(p, begin, count, positions, s);
    for (int i = count * s->dim; i < (count + 3) / 4 * 4 * s->dim; i += 16) {
      L::Store(s->tile + i, L::Set1(0.0F));
    }
    f(begin, count, TileRows<L>{s->tile, s->dim});
  }
}

template <typename L, typename T>
void ComputeScores(const AttentionPartialParams& p, int positions, AttentionScratch* s) {
  ForParts<L, T, false>(p, positions, s, [s](int begin, int count, const auto& keys) {
    ScoreAllRows<L>(begin, count, keys, s);
  });
}

// In place from dot products to exp(scale * s - max); stores max and sum.
template <typename L>
void SoftmaxRow(float* row, int n, float scale, float* max_out, float* sum_out) {
  using Reg = typename L::Reg;
  const float lowest = -__builtin_inff();
  Reg max = L::Set1(lowest);
  for (int i = 0; i < n; i += 16) {
    StoreElements<L>(row + i, n - i, L::Mul(LoadElements<L>(row + i, n - i), L::Set1(scale)));
    max = L::Max(max, n - i >= 16 ? L::Load(row + i) : L::LoadTail(row + i, n - i, lowest));
  }
  *max_out = L::MaxOf(max);
  max = L::Set1(*max_out);
  Reg sum = L::Set1(0.0F);
  for (int i = 0; i < n; i += 16) {
    StoreElements<L>(row + i, n - i, ExpLanes<L>(L::Sub(LoadElements<L>(row + i, n - i), max)));
    sum = L::Add(sum, LoadElements<L>(row + i, n - i));
  }
  *sum_out = L::Sum(sum);
}

// o[r] += sum over positions [begin, end) of weights[r][j] * values[j], for kRows rows; weights are
// kScoreStride apart.
template <typename L, int kRows, typename Rows>
void AccumulateBlock(const float* weights, const Rows& values, int begin, int end, int dim,
                     float* o) {
  using Reg = typename L::Reg;
  constexpr int kVectors = L::kValueVectors;
  for (int i = 0; i < dim; i += 16 * kVectors) {
    Reg acc[kRows][kVectors];
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) acc[r][v] = L::Load(o + r * dim + i + 16 * v);
    }
    for (int j = begin; j < end; ++j) {
      if (i % 32 == 0) values.Prefetch(j, i);
      Reg value[kVectors];
      for (int v = 0; v < kVectors; ++v) value[v] = values.Load(j, i + 16 * v);
      for (int r = 0; r < kRows; ++r) {
        const Reg weight = L::Set1(weights[r * kScoreStride + j]);
        for (int v = 0; v < kVectors; ++v) acc[r][v] = L::Fma(weight, value[v], acc[r][v]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) L::Store(o + r * dim + i + 16 * v, acc[r][v]);
    }
  }
}

// Rows from `row` on, kRows at a time and the rest in halves. What only the later rows of a group
// see follows row by row: a weight of 0 would not do, since an unseen value may be NaN.
template <typename L, int kRows, typename Rows>
void AccumulateRows(int row, int begin, int count, const Rows& values, AttentionScratch* s) {
  for (; row + kRows <= s->num_rows; row += kRows) {
    const float* weights = s->scores + row * kScoreStride + begin;
    float* o = s->o + row * s->dim;
    int seen[kRows];
    for (int r = 0; r < kRows; ++r) {
      const int n = s->limit[row + r] - begin;
      seen[r] = n < 0 ? 0 : (n < count ? n : count);
    }
    if (seen[0] > 0) AccumulateBlock<L, kRows>(weights, values, 0, seen[0], s->dim, o);
    for (int r = 1; r < kRows; ++r) {
      if (seen[r] == seen[0]) continue;
      AccumulateBlock<L, 1>(weights + r * kScoreStride, values, seen[0], seen[r], s->dim,
                            o + r * s->dim);
    }
  }
  if constexpr (kRows > 1) AccumulateRows<L, kRows / 2>(row, begin, count, values, s);
}

template <typename L, typename T>
void ComputeOutputs(const AttentionPartialParams& p, int positions, AttentionScratch* s) {
  for (int i = 0; i < s->num_rows * s->dim; i += 16) L::Store(s->o + i, L::Set1(0.0F));
  ForParts<L, T, true>(p, positions, s, [s](int begin, int count, const auto& values) {
    AccumulateRows<L, L::kValueRows>(0, begin, count, values, s);
  });
}

template <typename L>
void WritePartials(const AttentionPartialParams& p, int first_row, const AttentionScratch& s) {
  for (int r = 0; r < s.num_rows; ++r) {
    const std::int32_t token = p.queries[(first_row + r) / p.group] - p.first_token;
    const int head = (first_row + r) % p.group;
    float* entry = p.partials + token * p.partial_query_stride + head * (s.head_dim + 2);
    const float* o = s.o + r * s.dim;
    for (int i = 0; i < s.head_dim; i += 16) {
      StoreElements<L>(entry + i, s.head_dim - i, L::Load(o + i));
    }
    entry[s.head_dim] = s.max[r];
    entry[s.head_dim + 1] = s.sum[r];
  }
}

// Calls f(first row) for the batches of the unit's rows, with their queries in the scratch.
template <typename L, typename Function>
void ForRowBatches(const AttentionPartialParams& p, AttentionScratch* s, const Function& f) {
  s->head_dim = p.kv.layout.head_dim;
  s->dim = (s->head_dim + 31) / 32 * 32;
  const int rows = p.num_queries * p.group;
  for (int first = 0; first < rows; first += kAttentionRows) {
    s->num_rows = rows - first < kAttentionRows ? rows - first : kAttentionRows;
    LoadQueries<L>(p, first, s);
    f(first);
  }
}

// The batch's o, max and sum of the partition.
template <typename L, typename T>
void AttendPartition(const AttentionPartialParams& p, int first_row, AttentionScratch* s) {
  FindLimits(p, first_row, s);
  const int positions = s->limit[s->num_rows - 1];
  ComputeScores<L, T>(p, positions, s);
  for (int r = 0; r < s->num_rows; ++r) {
    SoftmaxRow<L>(s->scores + r * kScoreStride, s->limit[r], p.scale, &s->max[r], &s->sum[r]);
  }
  ComputeOutputs<L, T>(p, positions, s);
}

template <typename L, typename T>
void PartialUnit(const AttentionPartialParams& p) {
  AttentionScratch s;  // left uninitialised: each part is written before it is read
  ForRowBatches<L>(p, &s, [&](int first) {
    AttendPartition<L, T>(p, first, &s);
    WritePartials<L>(p, first, s);
  });
}

// What the partitions so far have in common; `out` is their sum of exp(s - max) * v.
template <typename L>
struct MergedRow {
  float max = -__builtin_inff();
  float sum = 0.0F;
};

// Adds a partition's o, max and sum. One that saw nothing (sum 0) is passed over: its maximum is
// -infinity, and the difference of two such would be NaN.
template <typename L>
void MergeInto(const float* o, float max, float sum, std::int32_t head_dim, MergedRow<L>* merged,
               float* out) {
  if (sum == 0.0F) return;
  const float old = merged->max;
  merged->max = old > max ? old : max;
  const float keep = ExpOne<L>(old - merged->max);
  const float add = ExpOne<L>(max - merged->max);
  merged->sum = L::Fma1(sum, add, merged->sum * keep);
  for (int i = 0; i < head_dim; i += 16) {
    const int n = head_dim - i;
    const typename L::Reg kept = L::Mul(LoadElements<L>(out + i, n), L::Set1(keep));
    StoreElements<L>(out + i, n, L::Fma(LoadElements<L>(o + i, n), L::Set1(add), kept));
  }
}

static inline void SetToZero(float* row, std::int32_t n) {
  for (int i = 0; i < n; ++i) row[i] = 0.0F;
}
static inline void Divide(float* row, std::int32_t n, float divisor) {
  for (int i = 0; i < n; ++i) row[i] = row[i] / divisor;
}

template <typename L>
void MergeRow(const float* partials, std::int64_t stride, std::int32_t num_partitions,
              std::int32_t head_dim, float* out) {
  MergedRow<L> merged;
  SetToZero(out, head_dim);
  for (std::int32_t p = 0; p < num_partitions; ++p) {
    const float* entry = partials + p * stride;
    MergeInto<L>(entry, entry[head_dim], entry[head_dim + 1], head_dim, &merged, out);
  }
  Divide(out, head_dim, merged.sum);
}

template <typename L, typename T>
void WholeUnit(const AttentionPartialParams& params, float* out) {
  AttentionScratch s;  // left uninitialised: each part is written before it is read
  AttentionPartialParams p = params;
  ForRowBatches<L>(p, &s, [&](int first) {
    MergedRow<L> merged[kAttentionRows];
    const auto row = [&](int r) { return out + QueryOffset(p, first + r); };
    for (int r = 0; r < s.num_rows; ++r) SetToZero(row(r), s.head_dim);
    const std::int32_t last = p.queries[(first + s.num_rows - 1) / p.group];
    const int partitions = static_cast<int>(NumPartitions(p.positions[last] + std::int64_t{1}));
    for (p.partition = 0; p.partition < partitions; ++p.partition) {
      const std::int32_t block = (p.partition + 1) * (kKvPartition / p.kv.layout.block_size);
      p.next_keys = p.partition + 1 < partitions ? p.kv.keys(p.block_table[block], p.kv_head)
                                                 : params.next_keys;
      AttendPartition<L, T>(p, first, &s);
      for (int r = 0; r < s.num_rows; ++r) {
        MergeInto<L>(s.o + r * s.dim, s.max[r], s.sum[r], s.head_dim, &merged[r], row(r));
      }
    }
    for (int r = 0; r < s.num_rows; ++r) Divide(row(r), s.head_dim, merged[r].sum);
  });
}

// An entry of a level's table.
template <typename L, typename T>
constexpr AttentionVariant VariantOf(KvDType dtype, const char* name) {
  return {L::kIsa, dtype, name, AppendRow<L, T>, PartialUnit<L, T>, WholeUnit<L, T>, MergeRow<L>};
}

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_ATTENTION_BODY_H_
