// The blocks of one sequence in the order of its positions. It only grows while the sequence holds
// it; position p lives in slot p % block_size of block p / block_size. The first blocks may be
// known to the prefix cache, and shared. Move-only; not thread-safe.
#ifndef MILLRACE_RUNTIME_KV_BLOCK_TABLE_H_
#define MILLRACE_RUNTIME_KV_BLOCK_TABLE_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/kv/block_pool.h"
#include "runtime/kv/prefix_id.h"

namespace millrace {

// Blocks that `positions` positions take.
constexpr std::int32_t BlocksFor(std::int64_t positions, std::int32_t block_size) {
  return static_cast<std::int32_t>((positions + block_size - 1) / block_size);
}

class BlockTable {
 public:
  void Append(std::vector<BlockRef> blocks) {
    for (BlockRef& block : blocks) blocks_.push_back(std::move(block));
  }
  // Gives all blocks up; the table is empty afterwards.
  std::vector<BlockRef> Release() {
    num_known_ = 0;
    known_prefix_ = kNoPrefix;
    return std::exchange(blocks_, {});
  }

  // The prefix cache knows the first `num_blocks` blocks, all full, as `prefix`.
  void SetKnown(std::int32_t num_blocks, PrefixId prefix) {
    num_known_ = num_blocks;
    known_prefix_ = prefix;
  }
  // Of the prefix cache, when the sequence began: what it computes is remembered until the next.
  void set_flushes(std::uint64_t flushes) { flushes_ = flushes; }
  std::uint64_t flushes() const { return flushes_; }
  std::int32_t num_known() const { return num_known_; }
  PrefixId known_prefix() const { return known_prefix_; }

  std::int32_t num_blocks() const { return static_cast<std::int32_t>(blocks_.size()); }
  // The first `count` blocks, to the end of `ids`.
  void AppendIds(std::int32_t count, std::vector<std::int32_t>* ids) const {
    for (std::int32_t i = 0; i < count; ++i) ids->push_back(block(i).value());
  }
  BlockId block(std::int32_t i) const { return blocks_[static_cast<std::size_t>(i)].id(); }

 private:
  std::vector<BlockRef> blocks_;
  std::int32_t num_known_ = 0;
  std::uint64_t flushes_ = 0;
  PrefixId known_prefix_ = kNoPrefix;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_KV_BLOCK_TABLE_H_
