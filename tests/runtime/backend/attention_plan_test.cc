// How attention is cut into units: every query meets every partition that it sees exactly once, and
// shares it only with queries that see the same blocks.
#include "runtime/backend/attention_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "kernels/paged_kv.h"

namespace millrace {
namespace {

using ::testing::Each;

constexpr std::int64_t kNoLimit = std::int64_t{1} << 40;

// The spans of a step, as far as attention reads them.
class Sequences {
 public:
  explicit Sequences(std::int32_t block_size) : block_size_(block_size) {}

  // A sequence that computes its last `queries` of `context` positions; the blocks of its first
  // `common` positions are those of sequence `other`, the others are new.
  void Add(std::int32_t context, std::int32_t queries, std::int32_t common = 0,
           std::size_t other = 0) {
    const std::int32_t blocks = (context + block_size_ - 1) / block_size_;
    const auto from = table_start_.empty() ? 0 : table_start_[other];
    for (std::int32_t b = 0; b < blocks; ++b) {
      const bool shared = (b + 1) * block_size_ <= common;
      table_.push_back(shared ? table_[static_cast<std::size_t>(from + b)] : next_block_++);
    }
    for (std::int32_t i = context - queries; i < context; ++i) positions_.push_back(i);
    context_.push_back(context);
    query_start_.push_back(static_cast<std::int32_t>(positions_.size()));
    table_start_.push_back(static_cast<std::int32_t>(table_.size()));
  }

  StepInput Input() const {
    StepInput input;
    input.positions = positions_;
    input.query_start = query_start_;
    input.context_len = context_;
    input.block_table = table_;
    input.block_table_start = table_start_;
    return input;
  }
  std::int32_t SequenceOf(std::int32_t token) const {
    return static_cast<std::int32_t>(
               std::upper_bound(query_start_.begin(), query_start_.end(), token) -
               query_start_.begin()) -
           1;
  }
  std::int32_t BlockAt(std::int32_t sequence, std::int32_t position) const {
    return table_[static_cast<std::size_t>(table_start_[static_cast<std::size_t>(sequence)] +
                                           position / block_size_)];
  }
  std::int32_t position(std::int32_t token) const {
    return positions_[static_cast<std::size_t>(token)];
  }
  std::int32_t tokens() const { return static_cast<std::int32_t>(positions_.size()); }

 private:
  const std::int32_t block_size_;
  std::int32_t next_block_ = 0;
  std::vector<std::int32_t> positions_, context_, table_;
  std::vector<std::int32_t> query_start_ = {0};
  std::vector<std::int32_t> table_start_ = {0};
};

// Positions of the partition that the token sees.
std::int32_t SeenOf(const Sequences& s, std::int32_t token, std::int32_t partition) {
  return std::clamp(s.position(token) + 1 - partition * kKvPartition, 0, kKvPartition);
}

void ExpectUnitIsSound(const Sequences& s, const AttentionPlan& plan,
                       const AttentionPlan::Unit& unit, std::int32_t max_queries) {
  ASSERT_GE(unit.count, 1);
  ASSERT_LE(unit.count, max_queries);
  std::int32_t before = 0;
  for (std::int32_t i = unit.begin; i < unit.begin + unit.count; ++i) {
    const std::int32_t token = plan.queries()[static_cast<std::size_t>(i)];
    const std::int32_t seen = SeenOf(s, token, unit.partition);
    ASSERT_GE(seen, before) << "the kernel takes queries by what they see";
    before = seen;
    for (std::int32_t at = 0; at < seen; ++at) {
      const std::int32_t position = unit.partition * kKvPartition + at;
      ASSERT_EQ(s.BlockAt(s.SequenceOf(token), position), s.BlockAt(unit.sequence, position));
    }
  }
}

// A run has the units of its queries from partition 0 on, and all runs have all units.
void ExpectRunsAreSound(const AttentionPlan& plan, const AttentionPlan::Wave& wave) {
  if (wave.runs_begin == wave.runs_end) return;
  std::int32_t at = wave.units_begin;
  for (std::int32_t r = wave.runs_begin; r < wave.runs_end; ++r) {
    const AttentionPlan::Run& run = plan.runs()[static_cast<std::size_t>(r)];
    ASSERT_EQ(run.units_begin, at);
    const AttentionPlan::Unit& first = plan.units()[static_cast<std::size_t>(at)];
    for (std::int32_t partition = 0; at < run.units_end; ++at, ++partition) {
      const AttentionPlan::Unit& unit = plan.units()[static_cast<std::size_t>(at)];
      ASSERT_EQ(unit.partition, partition);
      ASSERT_EQ(unit.begin, first.begin);
      ASSERT_EQ(unit.count, first.count);
      ASSERT_EQ(unit.sequence, first.sequence);
    }
  }
  ASSERT_EQ(at, wave.units_end);
  ASSERT_LE(wave.longest_run, wave.work);
}

void ExpectSound(const Sequences& s, const AttentionPlan& plan, std::int64_t max_partials,
                 std::int32_t max_queries) {
  std::map<std::pair<std::int32_t, std::int32_t>, int> partials;  // of token and partition
  std::vector<std::int32_t> units_of(static_cast<std::size_t>(s.tokens()));
  std::int32_t token = 0;
  std::int32_t at = 0;
  for (const AttentionPlan::Wave& wave : plan.waves()) {
    ASSERT_EQ(wave.tokens_begin, token);
    ASSERT_EQ(wave.units_begin, at);
    token = wave.tokens_end;
    at = wave.units_end;
    const std::int64_t tokens = wave.tokens_end - wave.tokens_begin;
    ASSERT_TRUE(tokens == 1 || tokens * wave.partitions <= max_partials);
    for (std::int32_t u = wave.units_begin; u < wave.units_end; ++u) {
      const AttentionPlan::Unit& unit = plan.units()[static_cast<std::size_t>(u)];
      ASSERT_NO_FATAL_FAILURE(ExpectUnitIsSound(s, plan, unit, max_queries));
      ASSERT_LT(unit.partition, wave.partitions);
      for (std::int32_t i = unit.begin; i < unit.begin + unit.count; ++i) {
        const std::int32_t query = plan.queries()[static_cast<std::size_t>(i)];
        ASSERT_GE(query, wave.tokens_begin);
        ASSERT_LT(query, wave.tokens_end);
        ++partials[{query, unit.partition}];
        ++units_of[static_cast<std::size_t>(query)];
      }
    }
  }
  ASSERT_EQ(token, s.tokens());
  for (const AttentionPlan::Wave& wave : plan.waves()) {
    ASSERT_NO_FATAL_FAILURE(ExpectRunsAreSound(plan, wave));
  }
  for (std::int32_t t = 0; t < s.tokens(); ++t) {
    for (std::int32_t p = 0; p * kKvPartition <= s.position(t); ++p) {
      ASSERT_EQ((partials[{t, p}]), 1) << "token " << t << " partition " << p;
    }
  }
  EXPECT_EQ(std::vector(plan.units_of_token().begin(), plan.units_of_token().end()), units_of);
}

AttentionPlan Plan(const Sequences& s, std::int32_t block_size,
                   std::int32_t max_queries = AttentionPlan::kMaxQueries) {
  AttentionPlan plan(max_queries);
  // The plan keeps no reference to the input after Build.
  plan.Build(s.Input(), block_size, kNoLimit);
  ExpectSound(s, plan, kNoLimit, max_queries);
  return plan;
}

TEST(AttentionPlan, SharesTheWholePartitionsOfACommonPrefix) {
  Sequences s(32);
  s.Add(700, 1);
  for (int i = 0; i < 3; ++i) s.Add(600 + i, 1, 560);
  const AttentionPlan plan = Plan(s, 32);
  // Partitions 0 and 1 once for all four, the third of each alone.
  EXPECT_EQ(plan.units().size(), 2U + 4U);
  EXPECT_EQ(plan.units()[0].count, 4);
  EXPECT_THAT(plan.units_of_token(), Each(3));
}

TEST(AttentionPlan, DoesNotShareAPartitionThatOneOfThemIsStillFilling) {
  Sequences s(16);
  s.Add(256, 1);       // its last position is the last of partition 0
  s.Add(255, 1, 240);  // one short of it
  s.Add(300, 1, 240);  // another block at its end
  EXPECT_EQ(Plan(s, 16).units().size(), 4U);
}

TEST(AttentionPlan, FollowsAPrefixAsItBranches) {
  Sequences s(64);
  s.Add(1100, 1);
  s.Add(1100, 1, 1024);     // four partitions with the first
  s.Add(1100, 1, 512);      // two
  s.Add(1100, 1, 1024, 2);  // two with the first, four with the third
  const AttentionPlan plan = Plan(s, 64);
  EXPECT_EQ(plan.units().size(), 2U + 2U * 2U + 4U);
}

TEST(AttentionPlan, CutsALongChunkIntoTilesThatSharePastAndPresent) {
  Sequences s(32);
  s.Add(300, 40);
  const AttentionPlan plan = Plan(s, 32);
  EXPECT_EQ(plan.units().size(), 3U * 2U);
}

TEST(AttentionPlan, CutsIntoTilesOfAsManyQueriesAsTheDeviceTakes) {
  Sequences s(32);
  s.Add(300, 40);
  EXPECT_EQ(Plan(s, 32, 32).units().size(), 2U * 2U);
  EXPECT_EQ(Plan(s, 32, 1).units().size(), 40U * 2U);
}

TEST(AttentionPlan, HasRunsWhereNothingIsShared) {
  Sequences alone(32);
  alone.Add(300, 40);
  alone.Add(1100, 1);
  const AttentionPlan plan = Plan(alone, 32);
  EXPECT_EQ(plan.runs().size(), 3U + 1U);
  // Two tiles of 16 queries and one of 8 see two partitions, the other sequence's query sees five.
  EXPECT_EQ(plan.waves().front().work, (16 + 16 + 8) * 2 + 5);
  EXPECT_EQ(plan.waves().front().longest_run, 16 * 2);
  Sequences shared(32);
  shared.Add(600, 1);
  shared.Add(600, 1, 512);
  EXPECT_EQ(Plan(shared, 32).runs().size(), 0U);
}

TEST(AttentionPlan, LetsMoreThanOneUnitOfQueriesShare) {
  Sequences s(32);
  s.Add(300, 1);
  for (int i = 0; i < 40; ++i) s.Add(300, 1, 256);
  EXPECT_EQ(Plan(s, 32).units().size(), 3U + 41U);  // 41 queries, 16 a unit
}

TEST(AttentionPlan, IsSoundForRandomSteps) {
  constexpr std::uint32_t kSeed = 20261128;
  std::mt19937 random(kSeed);
  const auto below = [&](std::int32_t n) { return static_cast<std::int32_t>(random() % n); };
  // The same for all rounds, as in a backend.
  std::array<AttentionPlan, 3> plans = {AttentionPlan(1), AttentionPlan(), AttentionPlan(128)};
  constexpr std::array<std::int32_t, 3> kQueries = {1, AttentionPlan::kMaxQueries, 128};
  for (int round = 0; round < 400; ++round) {
    SCOPED_TRACE(::testing::Message() << "seed " << kSeed << " round " << round);
    const std::int32_t block_size = 16 << below(3);
    Sequences s(block_size);
    std::vector<std::int32_t> contexts;
    for (std::int32_t i = 0; i <= below(20); ++i) {
      const std::int32_t context = 1 + below(below(2) == 0 ? 1500 : 300);
      const std::int32_t queries = below(2) == 0 ? 1 : 1 + below(std::min(context, 70));
      const std::size_t other = contexts.empty() ? 0 : random() % contexts.size();
      // A prefix that is cached ends before what is computed.
      const std::int32_t most = contexts.empty() ? 0 : std::min(contexts[other], context - queries);
      s.Add(context, queries, below(3) == 0 || most == 0 ? 0 : below(most + 1), other);
      contexts.push_back(context);
    }
    const std::int64_t max_partials = below(2) == 0 ? kNoLimit : 1 + below(100);
    const auto which = static_cast<std::size_t>(below(3));
    plans[which].Build(s.Input(), block_size, max_partials);
    ExpectSound(s, plans[which], max_partials, kQueries[which]);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace millrace
