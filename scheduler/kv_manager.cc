#include "scheduler/kv_manager.h"

#include <optional>
#include <utility>

#include "base/check.h"

namespace millrace {
namespace {

// The last blocks first: of what is kept, the end of a prefix is evicted before its beginning.
void ReleaseFromTheEnd(std::vector<BlockRef>* blocks) {
  while (!blocks->empty()) blocks->pop_back();
}

}  // namespace

bool KvManager::Reserve(std::int64_t positions, BlockTable* table) {
  const std::int32_t missing = BlocksFor(positions, block_size_) - table->num_blocks();
  if (missing <= 0) return true;
  std::optional<std::vector<BlockRef>> blocks = Allocate(missing);
  if (!blocks) return false;
  table->Append(std::move(*blocks));
  return true;
}

std::optional<std::vector<BlockRef>> KvManager::Allocate(std::int32_t count) {
  std::vector<BlockId> evicted;
  std::optional<std::vector<BlockRef>> blocks = pool_.Allocate(count, &evicted);
  for (const BlockId id : evicted) cache_.Evict(id);
  stats_.evicted_blocks += static_cast<std::int64_t>(evicted.size());
  return blocks;
}

std::span<const std::uint32_t> KvManager::TokensOf(std::span<const std::uint32_t> tokens,
                                                   std::int32_t block) const {
  return tokens.subspan(static_cast<std::size_t>(std::int64_t{block} * block_size_),
                        static_cast<std::size_t>(block_size_));
}

std::vector<PrefixCache::Entry> KvManager::FindPrefix(std::span<const std::uint32_t> tokens,
                                                      std::string_view salt,
                                                      std::int32_t max_blocks) const {
  std::vector<PrefixCache::Entry> found;
  PrefixId before = kNoPrefix;
  for (std::int32_t block = 0; block < max_blocks; ++block) {
    const auto entry = cache_.Find({before, salt, TokensOf(tokens, block)});
    if (!entry) break;
    found.push_back(*entry);
    before = entry->prefix;
  }
  return found;
}

std::optional<std::int32_t> KvManager::ReserveWithPrefix(std::span<const std::uint32_t> tokens,
                                                         std::int64_t positions,
                                                         std::string_view salt, BlockTable* table) {
  MILLRACE_CHECK(table->num_blocks() == 0, "a sequence looks for its prefix when it begins");
  const auto length = static_cast<std::int32_t>(tokens.size());
  const auto found = FindPrefix(tokens, salt, (length - 1) / block_size_);
  table->set_flushes(flushes_);
  const auto hits = static_cast<std::int32_t>(found.size());
  // Blocks that are found may be free now; they are not there for the rest.
  std::int32_t free = pool_.num_free();
  for (const PrefixCache::Entry& entry : found) {
    if (pool_.references(entry.block) == 0) --free;
  }
  const std::int32_t missing = BlocksFor(positions, block_size_) - hits;
  if (missing > free) return std::nullopt;
  std::vector<BlockRef> blocks;
  for (const PrefixCache::Entry& entry : found) blocks.push_back(pool_.Acquire(entry.block));
  table->Append(std::move(blocks));
  table->Append(*Allocate(missing));
  if (hits > 0) table->SetKnown(hits, found.back().prefix);
  stats_.queried_tokens += length;
  stats_.hit_tokens += std::int64_t{hits} * block_size_;
  return hits * block_size_;
}

std::int32_t KvManager::KnownPositions(std::span<const std::uint32_t> tokens,
                                       std::string_view salt) const {
  const auto most = (static_cast<std::int32_t>(tokens.size()) - 1) / block_size_;
  return static_cast<std::int32_t>(FindPrefix(tokens, salt, most).size()) * block_size_;
}

void KvManager::Remember(std::span<const std::uint32_t> tokens, std::int32_t computed,
                         std::string_view salt, BlockTable* table) {
  if (table->flushes() != flushes_) return;
  const std::int32_t full = computed / block_size_;
  for (std::int32_t block = table->num_known(); block < full; ++block) {
    const BlockId id = table->block(block);
    const PrefixCache::Entry entry =
        cache_.Insert({table->known_prefix(), salt, TokensOf(tokens, block)}, id);
    if (entry.block == id) pool_.Keep(id);
    table->SetKnown(block + 1, entry.prefix);
  }
}

void KvManager::Forget(const BlockTable& table) {
  for (std::int32_t block = 0; block < table.num_known(); ++block) {
    const BlockId id = table.block(block);
    if (!pool_.kept(id)) continue;
    cache_.Evict(id);
    pool_.Unkeep(id);
  }
}

std::int32_t KvManager::Flush() {
  ++flushes_;
  const std::int32_t known = cache_.num_blocks();
  cache_.Clear();
  pool_.UnkeepAll();
  return known;
}

void KvManager::CountDeferred(std::vector<std::int32_t>* counts) const {
  for (const Deferred& deferred : deferred_) {
    for (const BlockRef& block : deferred.blocks) {
      ++(*counts)[static_cast<std::size_t>(block.id().value())];
    }
  }
}

void KvManager::Release(BlockTable* table) {
  std::vector<BlockRef> blocks = table->Release();
  if (launched_ == done_ || blocks.empty()) return ReleaseFromTheEnd(&blocks);
  num_deferred_ += static_cast<std::int32_t>(blocks.size());
  deferred_.push_back({launched_, std::move(blocks)});
}

void KvManager::StepDone() {
  MILLRACE_CHECK(done_ < launched_, "a step is done once");
  ++done_;
  while (!deferred_.empty() && deferred_.front().until <= done_) {
    num_deferred_ -= static_cast<std::int32_t>(deferred_.front().blocks.size());
    ReleaseFromTheEnd(&deferred_.front().blocks);
    deferred_.pop_front();
  }
}

}  // namespace millrace
