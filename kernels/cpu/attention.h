// Causal attention of decode and prefill over the paged KV cache.
//
// For one query row of one head at position p, with keys and values 0..p of its sequence:
//   s[j] = scale * (q . k[j]),  out = sum of softmax(s)[j] * v[j]
// Positions are cut into partitions at absolute multiples of kKvPartition = 256. A partition gives
//   m = max s,  l = sum of exp(s - m),  o = sum of exp(s - m) * v      (ascending j, fma per
//   element)
// and the merge goes over partitions in ascending order, also when there is only one:
//   M = max(M, m);  scale both sides by exp(old - M);  at the end out = o / l.
// Dot products and l use 16 virtual lanes and the fixed tree; exp is kernels' own
// (docs/numerics.md). So the result depends on q, the cache and p alone: not on block size,
// chunking, neighbours or threads.
//
// Thread-safe: a unit writes its own partials or output rows.
#ifndef MILLRACE_KERNELS_CPU_ATTENTION_H_
#define MILLRACE_KERNELS_CPU_ATTENTION_H_

#include <cstdint>
#include <span>

#include "kernels/cpu/isa.h"
#include "kernels/paged_kv.h"

namespace millrace::cpu {

// Writes K and V of one token and kv head into the cache, rounded to its type.
// key, value are [head_dim]; slot is position % block_size.
using KvAppendFn = void (*)(const KvLayerView& kv, std::int32_t block, std::int32_t head,
                            std::int32_t slot, const float* key, const float* value);

// Rows (query and head) for which keys and values are widened once: a unit of as many costs least
// for each. Rows, outputs and scores of so many, 270 KB for heads of 128 values, stay in a
// second-level cache.
inline constexpr std::int32_t kAttentionRows = 128;

// One unit of work: all query heads of one kv head, for a few queries over one partition. A query
// is a token of the step; those of one unit have the same keys and values in the partition up to
// the positions that they see, because they belong to one sequence or have the prefix in common.
struct AttentionPartialParams {
  KvLayerView kv;
  std::int32_t kv_head = 0;
  std::int32_t group = 0;                     // query heads that share the kv head
  const std::int32_t* block_table = nullptr;  // of the sequence: [ceil(context / block_size)]
  std::int32_t partition = 0;  // covers positions [256 * partition, 256 * (partition + 1))
  const std::int32_t* queries = nullptr;  // [num_queries] tokens
  std::int32_t num_queries = 0;
  // [tokens] The position of each token. REQUIRES: what queries see of the partition does not
  // descend from one query to the next.
  const std::int32_t* positions = nullptr;
  const float* q = nullptr;   // [tokens][..][group][head_dim]: head 0 of the group
  std::int64_t q_stride = 0;  // floats from one token's heads to the next token's
  float scale = 0.0F;         // 1 / sqrt(head_dim) in f32
  // Partials, [tokens][group] entries of (head_dim + 2) floats: o[head_dim], m, l; those of token
  // `first_token` come first. A query whose position lies before the partition gets m = -infinity,
  // l = 0, o = 0.
  float* partials = nullptr;
  std::int32_t first_token = 0;
  std::int64_t partial_query_stride = 0;  // floats from one token's entries to the next token's
  // Keys of a block that the same thread reads next, so that they are asked for in time; null:
  // unknown.
  const std::byte* next_keys = nullptr;
};
using AttentionPartialFn = void (*)(const AttentionPartialParams&);

// The same for all partitions that the queries see, one after the other and merged as they come:
// what AttentionPartialFn and AttentionMergeFn give, to the bit, without partials in memory. Of
// `params` partition and what describes partials are not looked at. REQUIRES: the queries are of
// one sequence. out is laid out as q.
using AttentionWholeFn = void (*)(const AttentionPartialParams& params, float* out);

// Merges `num_partitions` partial entries of one query head, `stride` floats apart, in ascending
// order; out is [head_dim].
using AttentionMergeFn = void (*)(const float* partials, std::int64_t stride,
                                  std::int32_t num_partitions, std::int32_t head_dim, float* out);

inline constexpr int kKvDTypes = 4;  // of KvDType

struct AttentionVariant {
  Isa isa;
  KvDType dtype;
  const char* name;
  KvAppendFn append;
  AttentionPartialFn partial;
  AttentionWholeFn whole;
  AttentionMergeFn merge;
};

// Every variant there is, most specific level first.
std::span<const AttentionVariant> AttentionVariants();
const AttentionVariant& SelectAttention(KvDType dtype, Isa isa);

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_ATTENTION_H_
