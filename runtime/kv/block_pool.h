// Who owns which block of the KV cache: ids only, the bytes belong to the backend.
//
// Not thread-safe: the engine thread owns it. The pool outlives every BlockRef; its destructor
// checks that every block came home.
#ifndef MILLRACE_RUNTIME_KV_BLOCK_POOL_H_
#define MILLRACE_RUNTIME_KV_BLOCK_POOL_H_

#include <cstdint>
#include <deque>
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

  // All `count` blocks, or none of them. Blocks free for the longest time go first, which is the
  // order in which a prefix cache evicts.
  std::optional<std::vector<BlockRef>> Allocate(std::int32_t count);

  std::int32_t num_blocks() const { return static_cast<std::int32_t>(references_.size()); }
  std::int32_t num_free() const { return static_cast<std::int32_t>(free_.size()); }
  std::int32_t num_used() const { return num_blocks() - num_free(); }
  std::int32_t references(BlockId id) const {
    return references_[static_cast<std::size_t>(id.value())];
  }

  // Aborts unless the free list and the reference counts agree: for debug builds and tests.
  void CheckInvariants() const;

 private:
  friend class BlockRef;
  void Release(BlockId id);

  std::vector<std::int32_t> references_;  // by block
  std::deque<BlockId> free_;              // the front is used next
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_KV_BLOCK_POOL_H_
