// Which full blocks hold which prefixes, so that a prompt that begins like an earlier one need not
// be computed again. A block is found by the prefix before it and its own tokens, the first one
// also by the caller's salt; all of it is compared, so no collision of hashes can make a wrong hit.
//
// Names are given by counting up: a block that was evicted and comes back has a new name, and
// blocks that followed it under the old name are found no more, until they are evicted too.
//
// Not thread-safe: owned by the KV manager. Holds ids, no references.
#ifndef MILLRACE_RUNTIME_KV_PREFIX_CACHE_H_
#define MILLRACE_RUNTIME_KV_PREFIX_CACHE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "runtime/kv/block_pool.h"
#include "runtime/kv/prefix_id.h"

namespace millrace {

// One full block of a prompt in its place.
struct PrefixKey {
  PrefixId before;                        // kNoPrefix for the first block
  std::string_view salt;                  // looked at for the first block only
  std::span<const std::uint32_t> tokens;  // [block_size]
};

class PrefixCache {
 public:
  struct Entry {
    PrefixId prefix;
    BlockId block;
  };

  explicit PrefixCache(std::int32_t num_blocks) : keys_(static_cast<std::size_t>(num_blocks)) {}

  std::optional<Entry> Find(const PrefixKey& key) const;

  // Records that `block` holds this. Where another block already does, that one stays the one that
  // is found; the result names it. REQUIRES: `block` is not known yet.
  Entry Insert(const PrefixKey& key, BlockId block);

  // What the block held is gone. REQUIRES: it is known.
  void Evict(BlockId block);

  // What every block held is gone.
  void Clear();

  std::int32_t num_blocks() const { return static_cast<std::int32_t>(entries_.size()); }

 private:
  struct OwnedKey {
    PrefixId before;
    std::string salt;
    std::vector<std::uint32_t> tokens;

    PrefixKey View() const { return {before, salt, tokens}; }
  };
  // By the keys' contents, whether they are owned or not.
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(const PrefixKey& key) const;
    std::size_t operator()(const OwnedKey* key) const { return (*this)(key->View()); }
  };
  struct Equal {
    using is_transparent = void;
    bool operator()(const PrefixKey& a, const PrefixKey& b) const;
    bool operator()(const OwnedKey* a, const OwnedKey* b) const {
      return (*this)(a->View(), b->View());
    }
    bool operator()(const OwnedKey* a, const PrefixKey& b) const { return (*this)(a->View(), b); }
    bool operator()(const PrefixKey& a, const OwnedKey* b) const { return (*this)(a, b->View()); }
  };

  std::vector<OwnedKey> keys_;  // by block; those that entries_ points to are in use
  absl::flat_hash_map<const OwnedKey*, Entry, Hash, Equal> entries_;  // never iterated
  std::uint64_t last_prefix_ = 0;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_KV_PREFIX_CACHE_H_
