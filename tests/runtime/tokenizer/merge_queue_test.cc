#include "runtime/tokenizer/merge_queue.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <utility>

namespace millrace {
namespace {

// Pushes and pops at random, with all orders of ranks and positions, against an ordered set.
template <typename Queue>
void ExpectOrdered(std::uint64_t seed) {
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  Queue queue;
  for (int word = 0; word < 20; ++word) {
    std::multiset<std::pair<std::uint32_t, std::uint32_t>> expected;
    int pushes = static_cast<int>(random() % 500);
    while (pushes > 0 || !expected.empty()) {
      if (pushes > 0 && random() % 2 == 0) {
        const MergeCandidate candidate = {static_cast<std::uint32_t>(random() % 9),
                                          static_cast<std::uint32_t>(random() % 1000)};
        queue.Push(candidate);
        expected.emplace(candidate.rank, candidate.left);
        --pushes;
      } else {
        const auto popped = queue.Pop();
        ASSERT_EQ(popped.has_value(), !expected.empty());
        if (!popped) continue;
        ASSERT_EQ(std::make_pair(popped->rank, popped->left), *expected.begin());
        expected.erase(expected.begin());
      }
    }
    ASSERT_FALSE(queue.Pop().has_value());
  }
}

TEST(HeapMergeQueue, GivesTheLowestRankAndOfEqualsTheLeftmost) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) ExpectOrdered<HeapMergeQueue>(seed);
}

TEST(BucketMergeQueue, GivesTheLowestRankAndOfEqualsTheLeftmost) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) ExpectOrdered<BucketMergeQueue>(seed);
}

}  // namespace
}  // namespace millrace
