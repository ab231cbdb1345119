// The two queues of merges that wait inside one word: lowest rank first, leftmost first of equals.
// Values that keep their memory between words; one thread each.
#ifndef MILLRACE_RUNTIME_TOKENIZER_MERGE_QUEUE_H_
#define MILLRACE_RUNTIME_TOKENIZER_MERGE_QUEUE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace millrace {

struct MergeCandidate {
  std::uint32_t rank;
  std::uint32_t left;  // position of the symbol that would take in the one behind it
};

// A binary heap: for words that fit the caches.
class HeapMergeQueue {
 public:
  void Push(MergeCandidate candidate) {
    heap_.push_back(std::uint64_t{candidate.rank} << 32 | candidate.left);
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }
  // The next merge; nullopt when there is none.
  std::optional<MergeCandidate> Pop() {
    if (heap_.empty()) return std::nullopt;
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const std::uint64_t key = heap_.back();
    heap_.pop_back();
    return MergeCandidate{static_cast<std::uint32_t>(key >> 32), static_cast<std::uint32_t>(key)};
  }

 private:
  std::vector<std::uint64_t> heap_;  // rank in the high half
};

// A list of positions for each rank: for long words, which have many equal ranks. Merges find new
// candidates from left to right, so the lists are mostly in order, and a word of a million bytes is
// swept through instead of sifted through.
class BucketMergeQueue {
 public:
  void Push(MergeCandidate candidate) {
    const auto [entry, inserted] = bucket_of_.try_emplace(candidate.rank, buckets_.size());
    if (inserted) buckets_.emplace_back();
    Bucket& bucket = buckets_[entry->second];
    if (!bucket.is_waiting) PushRank(candidate.rank);
    bucket.is_waiting = true;
    if (bucket.taken < bucket.lefts.size() && candidate.left < bucket.lefts.back()) {
      bucket.is_sorted = false;
    }
    bucket.lefts.push_back(candidate.left);
  }
  // The next merge; nullopt when there is none, and all memory of the word is given back.
  std::optional<MergeCandidate> Pop() {
    while (!ranks_.empty()) {
      const std::uint32_t rank = ranks_.front();
      Bucket& bucket = buckets_[bucket_of_.find(rank)->second];
      if (bucket.taken < bucket.lefts.size()) return MergeCandidate{rank, TakeFirst(&bucket)};
      bucket = Bucket();
      std::pop_heap(ranks_.begin(), ranks_.end(), std::greater<>());
      ranks_.pop_back();
    }
    bucket_of_.clear();
    buckets_.clear();
    return std::nullopt;
  }

 private:
  struct Bucket {
    std::vector<std::uint32_t> lefts;
    std::size_t taken = 0;    // the first ones, already popped
    bool is_sorted = true;    // those that are left
    bool is_waiting = false;  // its rank is in ranks_
  };

  void PushRank(std::uint32_t rank) {
    ranks_.push_back(rank);
    std::push_heap(ranks_.begin(), ranks_.end(), std::greater<>());
  }
  static std::uint32_t TakeFirst(Bucket* bucket) {
    if (!bucket->is_sorted) {
      std::sort(bucket->lefts.begin() + static_cast<std::ptrdiff_t>(bucket->taken),
                bucket->lefts.end());
      bucket->is_sorted = true;
    }
    return bucket->lefts[bucket->taken++];
  }

  absl::flat_hash_map<std::uint32_t, std::size_t> bucket_of_;  // by rank
  std::vector<Bucket> buckets_;
  std::vector<std::uint32_t> ranks_;  // a heap of the ranks that wait
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_TOKENIZER_MERGE_QUEUE_H_
