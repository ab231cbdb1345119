#include "scheduler/kv_manager.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <iterator>
#include <numeric>
#include <string_view>
#include <vector>

namespace millrace {
namespace {

TEST(KvManager, ReservesAllBlocksOrNone) {
  KvManager kv(4, 16);
  BlockTable first;
  BlockTable second;
  EXPECT_TRUE(kv.Reserve(33, &first));
  EXPECT_EQ(first.num_blocks(), 3);
  EXPECT_FALSE(kv.Reserve(17, &second));
  EXPECT_EQ(second.num_blocks(), 0);
  EXPECT_EQ(kv.num_free(), 1);
  EXPECT_TRUE(kv.Reserve(48, &first));  // already there
  EXPECT_EQ(kv.num_free(), 1);
  kv.Release(&first);
  EXPECT_EQ(kv.num_free(), 4);
  kv.CheckInvariants();
}

TEST(KvManager, HoldsBlocksUntilTheStepsThatAreInFlightAreDone) {
  KvManager kv(4, 16);
  BlockTable table;
  ASSERT_TRUE(kv.Reserve(32, &table));
  kv.StepLaunched();
  kv.StepLaunched();
  kv.Release(&table);
  EXPECT_EQ(table.num_blocks(), 0);
  EXPECT_EQ(kv.num_free(), 2);
  EXPECT_EQ(kv.num_deferred(), 2);
  kv.StepDone();
  EXPECT_EQ(kv.num_free(), 2);
  kv.StepLaunched();  // later than the release: not waited for
  kv.StepDone();
  EXPECT_EQ(kv.num_free(), 4);
  EXPECT_EQ(kv.num_deferred(), 0);
  kv.StepDone();
  kv.CheckInvariants();
}

using Tokens = std::vector<std::uint32_t>;

Tokens Numbers(std::uint32_t count, std::uint32_t first = 0) {
  Tokens out(count);
  std::iota(out.begin(), out.end(), first);
  return out;
}

class PrefixReuse : public ::testing::Test {
 protected:
  // A sequence of `tokens` that computed all of them and ended.
  void Run(const Tokens& tokens, std::string_view salt = "") {
    BlockTable table;
    ASSERT_TRUE(kv_.ReserveWithPrefix(tokens, std::ssize(tokens), salt, &table));
    kv_.Remember(tokens, static_cast<std::int32_t>(tokens.size()), salt, &table);
    kv_.Release(&table);
  }
  // The positions that a sequence of `tokens` would not have to compute.
  std::int32_t Hit(const Tokens& tokens, std::string_view salt = "") {
    BlockTable table;
    const auto found = kv_.ReserveWithPrefix(tokens, std::ssize(tokens), salt, &table);
    kv_.Release(&table);
    return found.value_or(-1);
  }

  KvManager kv_{8, 4};
};

TEST_F(PrefixReuse, FindsFullBlocksButNeverTheLastToken) {
  Run(Numbers(10));
  EXPECT_EQ(kv_.num_free(), 8);
  EXPECT_EQ(kv_.num_cached(), 2);
  EXPECT_EQ(Hit(Numbers(10)), 8);
  EXPECT_EQ(Hit(Numbers(9)), 8);
  EXPECT_EQ(Hit(Numbers(8)), 4);  // the eighth is the last
  EXPECT_EQ(Hit(Numbers(4)), 0);
  EXPECT_EQ(Hit(Numbers(10, 1)), 0);
  EXPECT_EQ(Hit(Numbers(10), "salt"), 0);
}

TEST_F(PrefixReuse, CountsWhatWasAskedForFoundAndEvictedToTheToken) {
  Run(Numbers(10));
  kv_.TakeStats();
  EXPECT_EQ(Hit(Numbers(11)), 8);
  const PrefixCacheStats stats = kv_.TakeStats();
  EXPECT_EQ(stats.queried_tokens, 11);
  EXPECT_EQ(stats.hit_tokens, 8);
  EXPECT_EQ(stats.evicted_blocks, 0);
  BlockTable all;
  ASSERT_TRUE(kv_.Reserve(32, &all));
  EXPECT_EQ(kv_.TakeStats().evicted_blocks, 2);
  EXPECT_EQ(kv_.num_cached(), 0);
  kv_.Release(&all);
  EXPECT_EQ(Hit(Numbers(10)), 0);
}

TEST_F(PrefixReuse, EvictsTheLeastRecentlyUsedAndOfItTheEndFirst) {
  Run(Numbers(13));       // three full blocks
  Run(Numbers(13, 100));  // three more: two blocks hold nothing
  Hit(Numbers(13));       // used again
  BlockTable some;
  ASSERT_TRUE(kv_.Reserve(4 * 4, &some));  // the two empty ones, then the end of the second
  EXPECT_EQ(kv_.TakeStats().evicted_blocks, 2);
  kv_.Release(&some);
  EXPECT_EQ(Hit(Numbers(13)), 12);
  EXPECT_EQ(Hit(Numbers(13, 100)), 4);
}

TEST_F(PrefixReuse, SharesBlocksOfASequenceThatStillRuns) {
  const Tokens tokens = Numbers(9);
  BlockTable first;
  ASSERT_TRUE(kv_.ReserveWithPrefix(tokens, std::ssize(tokens), "", &first));
  kv_.Remember(tokens, 8, "", &first);
  BlockTable second;
  EXPECT_EQ(kv_.ReserveWithPrefix(tokens, std::ssize(tokens), "", &second), 8);
  EXPECT_EQ(second.block(0), first.block(0));
  EXPECT_EQ(kv_.references(first.block(0)), 2);
  EXPECT_NE(second.block(2), first.block(2));
  EXPECT_EQ(kv_.num_free(), 8 - 4);
  kv_.Release(&first);
  EXPECT_EQ(kv_.num_free(), 8 - 3);
  kv_.Release(&second);
  kv_.CheckInvariants();
}

TEST_F(PrefixReuse, TakesNoBlockWhereTheRestDoesNotFit) {
  Run(Numbers(21));  // five full blocks and a part
  BlockTable other;
  ASSERT_TRUE(kv_.Reserve(8, &other));
  // All five are found, and free; but only one block is left for the two that are missing.
  Tokens longer = Numbers(20);
  longer.resize(28, 7);
  BlockTable table;
  EXPECT_FALSE(kv_.ReserveWithPrefix(longer, std::ssize(longer), "", &table));
  EXPECT_EQ(table.num_blocks(), 0);
  EXPECT_EQ(kv_.num_free(), 6);
  EXPECT_EQ(kv_.num_cached(), 5);
  kv_.Release(&other);
  EXPECT_EQ(Hit(longer), 20);
}

TEST_F(PrefixReuse, ForgetsWhatIsWrong) {
  const Tokens tokens = Numbers(9);
  BlockTable table;
  ASSERT_TRUE(kv_.ReserveWithPrefix(tokens, std::ssize(tokens), "", &table));
  kv_.Remember(tokens, 9, "", &table);
  kv_.Forget(table);
  kv_.Release(&table);
  EXPECT_EQ(kv_.num_cached(), 0);
  EXPECT_EQ(Hit(tokens), 0);
  kv_.CheckInvariants();
}

TEST_F(PrefixReuse, KeepsBlocksFromEvictionWhileAStepReadsThem) {
  const Tokens tokens = Numbers(33 - 1);  // the whole pool
  BlockTable table;
  ASSERT_TRUE(kv_.ReserveWithPrefix(tokens, std::ssize(tokens), "", &table));
  kv_.Remember(tokens, 32, "", &table);
  kv_.StepLaunched();
  kv_.Release(&table);
  BlockTable next;
  EXPECT_FALSE(kv_.Reserve(4, &next));
  EXPECT_EQ(kv_.num_cached(), 0);
  kv_.StepDone();
  EXPECT_EQ(kv_.num_cached(), 8);
  EXPECT_TRUE(kv_.Reserve(4, &next));
  kv_.Release(&next);
}

TEST_F(PrefixReuse, FindsNothingOfWhatBeganBeforeAFlush) {
  Run(Numbers(10, 100));
  const Tokens tokens = Numbers(9);
  const Tokens other = Numbers(9, 200);
  BlockTable known;    // of its first block
  BlockTable unknown;  // computed half a block, or its step is under way
  ASSERT_TRUE(kv_.ReserveWithPrefix(tokens, std::ssize(tokens), "", &known));
  ASSERT_TRUE(kv_.ReserveWithPrefix(other, std::ssize(other), "", &unknown));
  kv_.Remember(tokens, 4, "", &known);
  EXPECT_EQ(kv_.Flush(), 3);
  kv_.CheckInvariants();
  EXPECT_EQ(kv_.num_cached(), 0);
  EXPECT_EQ(kv_.KnownPositions(Numbers(10, 100), ""), 0);
  EXPECT_EQ(kv_.KnownPositions(tokens, ""), 0);
  kv_.Remember(tokens, 8, "", &known);
  kv_.Remember(other, 8, "", &unknown);
  EXPECT_EQ(kv_.KnownPositions(tokens, ""), 0);
  EXPECT_EQ(kv_.KnownPositions(other, ""), 0);
  kv_.Release(&known);
  kv_.Release(&unknown);
  EXPECT_EQ(kv_.num_cached(), 0) << "nothing is kept that nobody can find";
  Run(tokens);
  EXPECT_EQ(kv_.KnownPositions(tokens, ""), 8);
  EXPECT_EQ(Hit(tokens), 8);
}

}  // namespace
}  // namespace millrace
