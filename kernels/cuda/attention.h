// Causal attention over the paged KV cache on the device, to the bit kernels/cpu/attention.h (NaN
// payloads apart): partials of (query, head, partition of 256 positions), then their merge in
// ascending order, which also quantises the result for the product that reads it. Of few tokens the
// kernel of the partials merges them, too.
//
// The work of a step is a list of units, in device memory: which queries look at which partition.
// It is the same for all layers. Every query of a unit must see the keys and values that the unit's
// sequence has there, up to its own position: queries of one sequence do, and so do those of
// sequences with a common prefix within it. Sharing, tiles and the order of units change no bit.
//
// Host code; thread-safe. Owns nothing.
#ifndef MILLRACE_KERNELS_CUDA_ATTENTION_H_
#define MILLRACE_KERNELS_CUDA_ATTENTION_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/activation_rows.h"
#include "kernels/paged_kv.h"

namespace millrace::cuda {

struct AttentionUnit {
  std::int32_t partition;  // positions [256 * partition, 256 * (partition + 1))
  std::int32_t sequence;   // whose block table leads to them
  std::int32_t begin;      // queries [begin, begin + count) of the list of queries
  std::int32_t count;
};

// How many rows (query heads) a block of threads takes. More share what they read of the cache;
// fewer make more blocks. Bits do not depend on it.
enum class AttentionTile : std::uint8_t { kFew, kGroup, kMany };

struct AttentionTileInfo {
  AttentionTile tile;
  std::int32_t rows;
  std::int32_t keys;  // positions that are in shared memory at a time
  const char* reason;
};
inline constexpr AttentionTileInfo kAttentionTiles[] = {
    {AttentionTile::kFew, 2, 64, "the GPU would not be full: split heads over blocks"},
    {AttentionTile::kGroup, 8, 64, "a query a sequence: its heads share each key and value"},
    {AttentionTile::kMany, 32, 32, "queries of one sequence share each key and value"},
};
constexpr const AttentionTileInfo& Info(AttentionTile tile) {
  return kAttentionTiles[static_cast<std::size_t>(tile)];
}

// Shared memory of a block: of no use to a GPU that gives a block less.
std::size_t AttentionSharedBytes(AttentionTile tile, KvDType dtype, std::int32_t head_dim);

// What decides on a tile; counts as they are expected, not as they are at most.
struct AttentionWork {
  std::int64_t units = 0;
  std::int32_t queries_per_unit = 1;  // of the largest
  std::int32_t group = 1;             // query heads that share a kv head
  std::int32_t num_kv_heads = 1;
};
AttentionTile ChooseAttentionTile(const AttentionWork& work, std::int32_t multiprocessors);

// Whether the merge is the end of the partials' kernel, which saves a launch, or follows it. A
// pure function, so that the kernels of a shape are always the same; bits do not depend on it.
struct AttentionTailWork {
  AttentionWork work;
  AttentionTile tile = AttentionTile::kGroup;
  KvDType dtype = KvDType::kF16;
  std::int32_t head_dim = 0;
  std::int32_t tokens = 0;
  std::int64_t num_counters = 0;  // that there are
  std::int32_t multiprocessors = 132;
  bool allowed = true;
};
struct AttentionTailChoice {
  bool fused;
  const char* why;
};
inline constexpr std::int32_t kMaxTokensOfAttentionTail = 32;
AttentionTailChoice ChooseAttentionTail(const AttentionTailWork& work);

// Counters that the tail of so many tokens needs.
std::int64_t AttentionTailCounters(std::int32_t tokens, std::int32_t num_heads,
                                   std::int32_t head_dim);

// The merge in the kernel of the partials. The block that writes the last entry of a token's part,
// the fewest heads that are merged as a whole, merges it; the units are all there are of the tokens
// that they have queries of. An entry that is the only one of its token may never reach `partials`.
struct AttentionTail {
  // One for each token and part (AttentionTailCounters), 0 before and after; null: there is no
  // tail.
  std::int32_t* counters = nullptr;
  ActivationRows out;  // row of each token, Nq * D values
};

// All pointers are the device's. Letters: Nq, Nkv query and key/value heads, D head_dim. Of a
// chained launch the kernel just before may write q and the cache, but none of the plan: units,
// queries, positions, tables and starts.
struct AttentionParams {
  KvLayerView kv;                                   // its data is in device memory
  std::int32_t num_heads = 0;                       // Nq, a multiple of Nkv
  const AttentionUnit* units = nullptr;             // [*num_units]
  const std::int32_t* num_units = nullptr;          // [1]
  std::int32_t max_units = 0;                       // *num_units is at most this
  std::int32_t max_queries = 1;                     // `count` of a unit is at most this
  const std::int32_t* queries = nullptr;            // tokens of the step
  const std::int32_t* positions = nullptr;          // [tokens]
  const std::int32_t* block_table = nullptr;        // [sum of blocks]
  const std::int32_t* block_table_start = nullptr;  // [sequences + 1]
  const float* q = nullptr;                         // [tokens][Nq][D], aligned to 16
  std::int64_t q_stride = 0;                        // floats from token to token, a multiple of 4
  float scale = 0.0F;                               // 1 / sqrt(D) in f32
  // Entries of (D + 2) floats: o[D], m, l; that of a token, partition and head is number
  // (partial_start[token] + partition) * Nq + head. Where a query lies before a unit's partition it
  // gets m = -infinity, l = 0, o = 0.
  float* partials = nullptr;
  const std::int32_t* partial_start = nullptr;  // [tokens]
  AttentionTile tile = AttentionTile::kGroup;
  AttentionTail tail;
  bool chained = false;  // kernels/cuda/launch.h
};

// The units' partials, and their merge where there is a tail. Refuses what CanAttend
// (kernels/cuda/rope_append.h) refuses, and a tail that ChooseAttentionTail has no room for.
cudaError_t LaunchAttention(const AttentionParams& params, cudaStream_t stream);

// All pointers are the device's. Of a chained launch the kernel just before may write the partials,
// but not the rest.
struct AttentionMergeParams {
  const float* partials = nullptr;  // and how they lie: as above
  const std::int32_t* partial_start = nullptr;
  const std::int32_t* positions = nullptr;   // [*num_tokens]
  std::int32_t first_token = 0;              // rows of out before it are left alone
  const std::int32_t* num_tokens = nullptr;  // [1]: tokens [first_token, *num_tokens)
  std::int32_t max_tokens = 0;               // of those at most
  std::int32_t num_heads = 0;
  std::int32_t head_dim = 0;
  ActivationRows out;  // row of each token, Nq * D values
  bool chained = false;
};

// Merges all partitions that a token sees: those up to positions[token] / 256.
cudaError_t LaunchAttentionMerge(const AttentionMergeParams& params, cudaStream_t stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_ATTENTION_H_
