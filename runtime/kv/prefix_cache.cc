#include "runtime/kv/prefix_cache.h"

#include <algorithm>

#include "absl/hash/hash.h"
#include "base/check.h"

namespace millrace {

// Seeded by the process, so that callers cannot make prompts that collide.
std::size_t PrefixCache::Hash::operator()(const PrefixKey& key) const {
  const std::string_view tokens(reinterpret_cast<const char*>(key.tokens.data()),
                                key.tokens.size_bytes());
  return absl::HashOf(key.before, key.before == kNoPrefix ? key.salt : std::string_view(), tokens);
}

bool PrefixCache::Equal::operator()(const PrefixKey& a, const PrefixKey& b) const {
  return a.before == b.before && (a.before != kNoPrefix || a.salt == b.salt) &&
         std::equal(a.tokens.begin(), a.tokens.end(), b.tokens.begin(), b.tokens.end());
}

std::optional<PrefixCache::Entry> PrefixCache::Find(const PrefixKey& key) const {
  const auto found = entries_.find(key);
  if (found == entries_.end()) return std::nullopt;
  return found->second;
}

PrefixCache::Entry PrefixCache::Insert(const PrefixKey& key, BlockId block) {
  if (const auto found = Find(key)) return *found;
  OwnedKey& owned = keys_[static_cast<std::size_t>(block.value())];
  MILLRACE_CHECK(owned.tokens.empty(), "a block holds one prefix");
  owned.before = key.before;
  if (key.before == kNoPrefix) owned.salt = key.salt;
  owned.tokens.assign(key.tokens.begin(), key.tokens.end());
  const Entry entry{PrefixId(++last_prefix_), block};
  entries_.emplace(&owned, entry);
  return entry;
}

void PrefixCache::Evict(BlockId block) {
  OwnedKey& owned = keys_[static_cast<std::size_t>(block.value())];
  const bool known = entries_.erase(&owned) == 1;
  MILLRACE_CHECK(known, "what is evicted was kept");
  owned = {};
}

void PrefixCache::Clear() {
  entries_.clear();
  for (OwnedKey& key : keys_) key = {};
}

}  // namespace millrace
