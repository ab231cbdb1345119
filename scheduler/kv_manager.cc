#include "scheduler/kv_manager.h"

#include <optional>
#include <utility>

#include "base/check.h"

namespace millrace {

bool KvManager::Reserve(std::int64_t positions, BlockTable* table) {
  const std::int32_t missing = BlocksFor(positions, block_size_) - table->num_blocks();
  if (missing <= 0) return true;
  std::optional<std::vector<BlockRef>> blocks = pool_.Allocate(missing);
  if (!blocks) return false;
  table->Append(std::move(*blocks));
  return true;
}

void KvManager::Release(BlockTable* table) {
  std::vector<BlockRef> blocks = table->Release();
  if (launched_ == done_ || blocks.empty())
    return;  // the references end here, and so the blocks are free
  num_deferred_ += static_cast<std::int32_t>(blocks.size());
  deferred_.push_back({launched_, std::move(blocks)});
}

void KvManager::StepDone() {
  MILLRACE_CHECK(done_ < launched_, "a step is done once");
  ++done_;
  while (!deferred_.empty() && deferred_.front().until <= done_) {
    num_deferred_ -= static_cast<std::int32_t>(deferred_.front().blocks.size());
    deferred_.pop_front();
  }
}

}  // namespace millrace
