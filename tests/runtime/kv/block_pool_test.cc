// Who owns a block, and where a position lives.
#include "runtime/kv/block_pool.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels/paged_kv.h"
#include "runtime/kv/block_table.h"

namespace millrace {
namespace {

TEST(BlockPool, GivesAllBlocksOrNone) {
  BlockPool pool(4);
  auto three = pool.Allocate(3);
  ASSERT_TRUE(three.has_value());
  EXPECT_FALSE(pool.Allocate(2).has_value());
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_TRUE(pool.Allocate(1).has_value());  // and back at once
  EXPECT_TRUE(pool.Allocate(0)->empty());
  EXPECT_EQ(pool.num_free(), 1);
}

TEST(BlockPool, ReusesWhatHasBeenFreeForTheLongestTime) {
  BlockPool pool(3);
  auto blocks = *pool.Allocate(3);
  blocks[1].Reset();
  blocks[2].Reset();
  blocks[0].Reset();
  const auto again = *pool.Allocate(3);
  EXPECT_EQ(again[0].id(), BlockId(1));
  EXPECT_EQ(again[1].id(), BlockId(2));
  EXPECT_EQ(again[2].id(), BlockId(0));
}

TEST(BlockPool, KeepsASharedBlockUntilItsLastReference) {
  BlockPool pool(1);
  auto first = *pool.Allocate(1);
  BlockRef second = first[0].Share();
  EXPECT_EQ(pool.references(BlockId(0)), 2);
  first[0].Reset();
  EXPECT_EQ(pool.num_free(), 0);
  BlockRef moved = std::move(second);
  EXPECT_FALSE(second.valid());  // moved from: empty by contract
  moved.Reset();
  EXPECT_EQ(pool.num_free(), 1);
}

TEST(BlockPoolDeathTest, NoticesABlockThatNeverCameHome) {
  EXPECT_DEATH(
      {
        auto* pool = new BlockPool(2);
        auto blocks = *pool->Allocate(1);
        delete pool;
      },
      "check failed");
}

// A sequence with its blocks and how many positions it has.
struct Owner {
  BlockTable table;
  std::int64_t length = 0;
};

// FALSIFY-PKV-001: positions and slots map one to one.
// FALSIFY-PKV-003: a table only grows while its sequence lives.
// FALSIFY-PKV-004: a sequence wastes less than one block.
// FALSIFY-PKV-005: no block stands twice in live tables.
// FALSIFY-PKV-006: allocated + free = pool size after any sequence of calls.
TEST(BlockPool, KeepsItsPromisesOverRandomCalls) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 rng(seed);
  constexpr std::int32_t kBlockSizes[] = {16, 32, 64};
  const std::int32_t block_size = kBlockSizes[rng() % 3];
  BlockPool pool(50);
  std::vector<Owner> owners(12);
  for (int call = 0; call < 3000; ++call) {
    Owner& owner = owners[rng() % owners.size()];
    if (rng() % 4 == 0) {
      owner.table.Release();
      owner.length = 0;
    } else {
      std::vector<BlockId> before;
      for (std::int32_t i = 0; i < owner.table.num_blocks(); ++i)
        before.push_back(owner.table.block(i));
      const std::int64_t length = owner.length + rng() % 100;
      auto blocks = pool.Allocate(BlocksFor(length, block_size) - owner.table.num_blocks());
      if (blocks) {
        owner.table.Append(*std::move(blocks));
        owner.length = length;
      }
      for (std::size_t i = 0; i < before.size(); ++i) {
        ASSERT_EQ(owner.table.block(static_cast<std::int32_t>(i)), before[i]);
      }
    }
    pool.CheckInvariants();
    std::set<std::int64_t> slots;
    std::int64_t positions = 0;
    std::int32_t held = 0;
    for (const Owner& o : owners) {
      held += o.table.num_blocks();
      positions += o.length;
      const std::int64_t waste = std::int64_t{o.table.num_blocks()} * block_size - o.length;
      ASSERT_GE(waste, 0);
      ASSERT_LT(waste, block_size);
      for (std::int64_t p = 0; p < o.length; p += block_size / 2) {
        const auto block = o.table.block(static_cast<std::int32_t>(p / block_size)).value();
        ASSERT_TRUE(slots.insert(std::int64_t{block} * block_size + p % block_size).second);
      }
    }
    ASSERT_EQ(held + pool.num_free(), pool.num_blocks());
    ASSERT_LE(positions, std::int64_t{50} * block_size);
  }
  for (Owner& owner : owners) owner.table.Release();
  EXPECT_EQ(pool.num_free(), 50);
}

// FALSIFY-PKV-007: offsets are those of [block][head][K, V][slot][dim], and nothing else lives
// there.
TEST(KvLayout, PlacesEveryRowByTheLayoutAlone) {
  for (const KvDType dtype : {KvDType::kF16, KvDType::kF32, KvDType::kQ8_0, KvDType::kFp8}) {
    for (const std::int32_t block_size : {16, 32, 64}) {
      const KvLayout layout = {.num_layers = 3,
                               .num_kv_heads = 2,
                               .head_dim = 64,
                               .block_size = block_size,
                               .dtype = dtype};
      const KvLayerView view = {nullptr, layout};
      const std::int64_t rows_bytes = block_size * KvRowBytes(dtype, 64);
      std::int64_t next = 0;
      for (std::int32_t block = 0; block < 4; ++block) {
        for (std::int32_t head = 0; head < 2; ++head) {
          EXPECT_EQ(view.keys(block, head) - view.data, next);
          EXPECT_EQ(view.values(block, head) - view.data, next + rows_bytes);
          next += 2 * rows_bytes;
        }
        EXPECT_EQ(next, (block + 1) * layout.layer_block_bytes());
      }
    }
  }
}

// FALSIFY-KV-001: bytes of a token = layers * 2 * kv heads * head_dim * bytes of an element.
TEST(KvLayout, TakesTheBytesOfTheFormula) {
  KvLayout layout = {.num_layers = 48, .num_kv_heads = 4, .head_dim = 128, .block_size = 32};
  EXPECT_EQ(layout.bytes_per_token(), 98304);  // Qwen3-30B-A3B in f16
  layout.dtype = KvDType::kF32;
  EXPECT_EQ(layout.bytes_per_token(), 196608);
  EXPECT_EQ(layout.block_bytes(), 32 * 196608);
  layout.dtype = KvDType::kFp8;
  EXPECT_EQ(layout.bytes_per_token(), 49152);
}

}  // namespace
}  // namespace millrace
