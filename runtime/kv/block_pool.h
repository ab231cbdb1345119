// Who owns which block of the KV cache: ids only, the bytes belong to the backend. A free block may
// be kept for what it holds (runtime/kv/prefix_cache.h); it is as free as any, but taken last.
//
// Not thread-safe: the engine thread owns it. The pool outlives every BlockRef; its destructor
// checks that every block came home.
#ifndef MILLRACE_RUNTIME_KV_BLOCK_POOL_H_
#define MILLRACE_RUNTIME_KV_BLOCK_POOL_H_

#include <cstdint>
#include <deque>
#include <list>
#include <optional>
#include <utility>
#include <vector>

#include "base/strong_id.h"

namespace millrace {

using BlockId = StrongId<struct BlockIdTag, std::int32_t>;

class BlockPool;

// One reference to a block; the block is free again when the last reference is gone. Move-only:
// sharing a block is an explicit call.
class BlockRef {
 public:
  BlockRef() = default;
  ~BlockRef() { Reset(); }
  BlockRef(BlockRef&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), id_(other.id_) {}
  BlockRef& operator=(BlockRef&& other) noexcept;

  bool valid() const { return pool_ != nullptr; }
  BlockId id() const { return id_; }
  // A second reference to the same block.
  BlockRef Share() const;
  void Reset();

 private:
  friend class BlockPool;
  BlockRef(BlockPool* pool, BlockId id) : pool_(pool), id_(id) {}

  BlockPool* pool_ = nullptr;
  BlockId id_;
};

class BlockPool {
 public:
  explicit BlockPool(std::int32_t num_blocks);
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // All `count` blocks, or none of them. Blocks free for the longest time go first, those that are
  // not kept before those that are; what kept ones held is lost, and they are added to `evicted`.
  std::optional<std::vector<BlockRef>> Allocate(std::int32_t count,
                                                std::vector<BlockId>* evicted = nullptr);

  // From now on what the block holds is worth keeping. REQUIRES: somebody refers to it.
  void Keep(BlockId id);
  // No longer. REQUIRES: somebody refers to it.
  void Unkeep(BlockId id);
  // No block any longer, free or not.
  void UnkeepAll();
  // A reference to a block that is kept, free or not.
  BlockRef Acquire(BlockId id);

  std::int32_t num_blocks() const { return static_cast<std::int32_t>(blocks_.size()); }
  std::int32_t num_free() const {
    return static_cast<std::int32_t>(free_.size() + kept_free_.size());
  }
  // Of the free ones, those that are kept.
  std::int32_t num_kept_free() const { return static_cast<std::int32_t>(kept_free_.size()); }
  std::int32_t num_used() const { return num_blocks() - num_free(); }
  std::int32_t references(BlockId id) const { return blocks_[Index(id)].references; }
  bool kept(BlockId id) const { return blocks_[Index(id)].kept; }

  // Aborts unless the free list and the reference counts agree: for debug builds and tests.
  void CheckInvariants() const;

 private:
  friend class BlockRef;
  struct Block {
    std::int32_t references = 0;
    bool kept = false;
    std::list<BlockId>::iterator place;  // in kept_free_, while the block is there
  };

  static std::size_t Index(BlockId id) { return static_cast<std::size_t>(id.value()); }
  void Release(BlockId id);
  BlockId TakeFree(std::vector<BlockId>* evicted);

  std::vector<Block> blocks_;
  // Free blocks, by the time since when; the front is used next, free_ before kept_free_.
  std::deque<BlockId> free_;
  std::list<BlockId> kept_free_;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_KV_BLOCK_POOL_H_
