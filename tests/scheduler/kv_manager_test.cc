#include "scheduler/kv_manager.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace millrace
