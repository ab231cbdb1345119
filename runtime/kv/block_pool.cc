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
  ++pool_->references_[static_cast<std::size_t>(id_.value())];
  return BlockRef(pool_, id_);
}

void BlockRef::Reset() {
  if (pool_ != nullptr) std::exchange(pool_, nullptr)->Release(id_);
}

BlockPool::BlockPool(std::int32_t num_blocks)
    : references_(static_cast<std::size_t>(num_blocks), 0) {
  for (std::int32_t i = 0; i < num_blocks; ++i) free_.push_back(BlockId(i));
}

BlockPool::~BlockPool() { MILLRACE_CHECK(num_used() == 0, "a block of the KV cache was leaked"); }

std::optional<std::vector<BlockRef>> BlockPool::Allocate(std::int32_t count) {
  if (count > num_free()) return std::nullopt;
  std::vector<BlockRef> out;
  out.reserve(static_cast<std::size_t>(count));
  for (std::int32_t i = 0; i < count; ++i) {
    const BlockId id = free_.front();
    free_.pop_front();
    references_[static_cast<std::size_t>(id.value())] = 1;
    out.push_back(BlockRef(this, id));
  }
  return out;
}

void BlockPool::Release(BlockId id) {
  std::int32_t& count = references_[static_cast<std::size_t>(id.value())];
  MILLRACE_CHECK(count > 0, "a block is released once for each reference");
  if (--count == 0) free_.push_back(id);
}

void BlockPool::CheckInvariants() const {
  std::vector<bool> is_free(references_.size(), false);
  for (const BlockId id : free_) {
    MILLRACE_CHECK(!is_free[static_cast<std::size_t>(id.value())], "a block is free once");
    is_free[static_cast<std::size_t>(id.value())] = true;
  }
  for (std::size_t i = 0; i < references_.size(); ++i) {
    MILLRACE_CHECK(is_free[i] == (references_[i] == 0), "a block is free iff nothing refers to it");
  }
}

}  // namespace millrace
