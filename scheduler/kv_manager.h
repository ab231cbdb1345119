// Joins sequences and blocks: reserves for a sequence, takes back, holds blocks that a step in
// flight still reads until that step is done, and finds blocks that hold a prompt's prefix already.
//
// Owned by the scheduler; not thread-safe.
#ifndef MILLRACE_SCHEDULER_KV_MANAGER_H_
#define MILLRACE_SCHEDULER_KV_MANAGER_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/kv/block_pool.h"
#include "runtime/kv/block_table.h"
#include "runtime/kv/prefix_cache.h"

namespace millrace {

// What the prefix cache did since the last look. A value.
struct PrefixCacheStats {
  std::int64_t queried_tokens = 0;  // of sequences that were admitted and looked
  std::int64_t hit_tokens = 0;      // that they need not compute
  std::int64_t evicted_blocks = 0;  // kept for nobody
};

class KvManager {
 public:
  KvManager(std::int32_t num_blocks, std::int32_t block_size)
      : block_size_(block_size), pool_(num_blocks), cache_(num_blocks) {}

  // As Reserve for an empty table, but begins with the blocks that hold the longest prefix of
  // `tokens` known under `salt`. Never the last token: its logits are wanted. Returns the positions
  // that need not be computed, a multiple of the block size; nullopt, with no effect, if there are
  // not enough free blocks for the rest. REQUIRES: there are not more tokens than positions.
  std::optional<std::int32_t> ReserveWithPrefix(std::span<const std::uint32_t> tokens,
                                                std::int64_t positions, std::string_view salt,
                                                BlockTable* table);

  // The positions that ReserveWithPrefix would find now.
  std::int32_t KnownPositions(std::span<const std::uint32_t> tokens, std::string_view salt) const;

  // The first `computed` positions of `table` hold `tokens`: full blocks of them may be found.
  // REQUIRES: the step that computed them is done.
  void Remember(std::span<const std::uint32_t> tokens, std::int32_t computed, std::string_view salt,
                BlockTable* table);

  // Grows `table` to hold `positions`, all or nothing. False when there are not enough free blocks.
  bool Reserve(std::int64_t positions, BlockTable* table);

  // Takes the blocks of `table` back: at once if no step is in flight, else when all steps that are
  // in flight now are done.
  void Release(BlockTable* table);

  // A step was launched, or the oldest one in flight is done.
  void StepLaunched() { ++launched_; }
  void StepDone();

  std::int32_t block_size() const { return block_size_; }
  std::int32_t num_blocks() const { return pool_.num_blocks(); }
  std::int32_t num_free() const { return pool_.num_free(); }
  // Of the free ones, those that the prefix cache keeps.
  std::int32_t num_cached() const { return pool_.num_kept_free(); }
  // Blocks that will be free when the steps in flight are done.
  std::int32_t num_deferred() const { return num_deferred_; }
  std::int32_t references(BlockId id) const { return pool_.references(id); }
  // Since the last call.
  PrefixCacheStats TakeStats() { return std::exchange(stats_, {}); }

  // What `table` holds is not to be found again: something is wrong with it.
  void Forget(const BlockTable& table);
  // Nothing that was computed until now is to be found again, nor what sequences that hold blocks
  // add to it. Tables stay as they are. Returns how many blocks could have been found.
  std::int32_t Flush();

  // Adds each reference of blocks that wait for a step to `counts`, by block.
  void CountDeferred(std::vector<std::int32_t>* counts) const;
  void CheckInvariants() const { pool_.CheckInvariants(); }

 private:
  struct Deferred {
    std::uint64_t until;  // free once so many steps are done
    std::vector<BlockRef> blocks;
  };

  // The known blocks of the longest prefix of at most `max_blocks` blocks.
  std::vector<PrefixCache::Entry> FindPrefix(std::span<const std::uint32_t> tokens,
                                             std::string_view salt, std::int32_t max_blocks) const;
  std::optional<std::vector<BlockRef>> Allocate(std::int32_t count);
  std::span<const std::uint32_t> TokensOf(std::span<const std::uint32_t> tokens,
                                          std::int32_t block) const;

  const std::int32_t block_size_;
  BlockPool pool_;
  PrefixCache cache_;
  PrefixCacheStats stats_;
  std::uint64_t flushes_ = 0;
  std::uint64_t launched_ = 0;
  std::uint64_t done_ = 0;
  std::int32_t num_deferred_ = 0;
  std::deque<Deferred> deferred_;  // after the pool: its references go first
};

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_KV_MANAGER_H_
