#include "runtime/kv/block_pool.h"

#include <algorithm>

#include "base/check.h"

namespace millrace {

BlockRef& BlockRef::operator=(BlockRef&& other) noexcept {
  if (this != &other) {
    Reset();
    pool_ = std::exchange(other.pool_, nullptr);
    id_ = other.id_;
  }
  return *this;
}

BlockRef BlockRef::Share() const {
  MILLRACE_CHECK(valid(), "only a valid reference can be shared");
  ++pool_->blocks_[BlockPool::Index(id_)].references;
  return BlockRef(pool_, id_);
}

void BlockRef::Reset() {
  if (pool_ != nullptr) std::exchange(pool_, nullptr)->Release(id_);
}

BlockPool::BlockPool(std::int32_t num_blocks) : blocks_(static_cast<std::size_t>(num_blocks)) {
  for (std::int32_t i = 0; i < num_blocks; ++i) free_.push_back(BlockId(i));
}

BlockPool::~BlockPool() { MILLRACE_CHECK(num_used() == 0, "a block of the KV cache was leaked"); }

BlockId BlockPool::TakeFree(std::vector<BlockId>* evicted) {
  BlockId id;
  if (!free_.empty()) {
    id = free_.front();
    free_.pop_front();
  } else {
    id = kept_free_.front();
    kept_free_.pop_front();
    blocks_[Index(id)].kept = false;
    if (evicted != nullptr) evicted->push_back(id);
  }
  return id;
}

std::optional<std::vector<BlockRef>> BlockPool::Allocate(std::int32_t count,
                                                         std::vector<BlockId>* evicted) {
  if (count > num_free()) return std::nullopt;
  std::vector<BlockRef> out;
  out.reserve(static_cast<std::size_t>(count));
  for (std::int32_t i = 0; i < count; ++i) {
    const BlockId id = TakeFree(evicted);
    blocks_[Index(id)].references = 1;
    out.push_back(BlockRef(this, id));
  }
  return out;
}

void BlockPool::Keep(BlockId id) {
  MILLRACE_CHECK(references(id) > 0, "only a block in use is filled with what is worth keeping");
  blocks_[Index(id)].kept = true;
}

void BlockPool::Unkeep(BlockId id) {
  MILLRACE_CHECK(references(id) > 0, "a free block is let go by Allocate");
  blocks_[Index(id)].kept = false;
}

void BlockPool::UnkeepAll() {
  for (Block& block : blocks_) block.kept = false;
  free_.insert(free_.end(), kept_free_.begin(), kept_free_.end());
  kept_free_.clear();
}

BlockRef BlockPool::Acquire(BlockId id) {
  Block& block = blocks_[Index(id)];
  MILLRACE_CHECK(block.kept, "only what is kept can be found again");
  if (block.references++ == 0) kept_free_.erase(block.place);
  return BlockRef(this, id);
}

void BlockPool::Release(BlockId id) {
  Block& block = blocks_[Index(id)];
  MILLRACE_CHECK(block.references > 0, "a block is released once for each reference");
  if (--block.references > 0) return;
  if (block.kept) {
    block.place = kept_free_.insert(kept_free_.end(), id);
  } else {
    free_.push_back(id);
  }
}

void BlockPool::CheckInvariants() const {
  std::vector<int> times(blocks_.size(), 0);
  for (const BlockId id : free_) {
    ++times[Index(id)];
    MILLRACE_CHECK(!kept(id), "a kept block is free among the kept ones");
  }
  for (const BlockId id : kept_free_) {
    ++times[Index(id)];
    MILLRACE_CHECK(kept(id), "a free block is kept where it is found");
  }
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    MILLRACE_CHECK(times[i] == (blocks_[i].references == 0 ? 1 : 0),
                   "a block is free, once, iff nothing refers to it");
  }
}

}  // namespace millrace
