// Joins sequences and blocks: reserves for a sequence, takes back, and holds blocks that a step in
// flight still reads until that step is done. Owned by the scheduler; not thread-safe.
#ifndef MILLRACE_SCHEDULER_KV_MANAGER_H_
#define MILLRACE_SCHEDULER_KV_MANAGER_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "runtime/kv/block_pool.h"
#include "runtime/kv/block_table.h"

namespace millrace {

class KvManager {
 public:
  KvManager(std::int32_t num_blocks, std::int32_t block_size)
      : block_size_(block_size), pool_(num_blocks) {}

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
  // Blocks that will be free when the steps in flight are done.
  std::int32_t num_deferred() const { return num_deferred_; }
  void CheckInvariants() const { pool_.CheckInvariants(); }

 private:
  struct Deferred {
    std::uint64_t until;  // free once so many steps are done
    std::vector<BlockRef> blocks;
  };

  const std::int32_t block_size_;
  BlockPool pool_;
  std::uint64_t launched_ = 0;
  std::uint64_t done_ = 0;
  std::int32_t num_deferred_ = 0;
  std::deque<Deferred> deferred_;  // after the pool: its references go first
};

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_KV_MANAGER_H_
