// What the prefix cache finds: equal tokens after an equal prefix under an equal salt, nothing
// else.
#include "runtime/kv/prefix_cache.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace millrace {
namespace {

using Tokens = std::vector<std::uint32_t>;

TEST(PrefixCache, FindsABlockByItsPrefixAndItsTokens) {
  PrefixCache cache(4);
  const Tokens hello = {1, 2};
  const Tokens world = {3, 4};
  const auto first = cache.Insert({kNoPrefix, "", hello}, BlockId(2));
  const auto second = cache.Insert({first.prefix, "", world}, BlockId(0));
  EXPECT_EQ(cache.Find({kNoPrefix, "", hello})->block, BlockId(2));
  EXPECT_EQ(cache.Find({first.prefix, "", world})->prefix, second.prefix);
  EXPECT_FALSE(cache.Find({kNoPrefix, "", world}));  // the same tokens elsewhere
  EXPECT_FALSE(cache.Find({first.prefix, "", hello}));
  EXPECT_FALSE(cache.Find({second.prefix, "", world}));
}

TEST(PrefixCache, KeepsTheBlocksOfSaltsApart) {
  PrefixCache cache(4);
  const Tokens tokens = {1, 2};
  const auto ours = cache.Insert({kNoPrefix, "ours", tokens}, BlockId(0));
  EXPECT_FALSE(cache.Find({kNoPrefix, "theirs", tokens}));
  EXPECT_FALSE(cache.Find({kNoPrefix, "", tokens}));
  const auto theirs = cache.Insert({kNoPrefix, "theirs", tokens}, BlockId(1));
  EXPECT_NE(ours.prefix, theirs.prefix);
  // What follows is told apart by the prefix before it.
  cache.Insert({ours.prefix, "ours", tokens}, BlockId(2));
  EXPECT_FALSE(cache.Find({theirs.prefix, "theirs", tokens}));
}

TEST(PrefixCache, StaysWithTheFirstOfTwoBlocksThatHoldTheSame) {
  PrefixCache cache(2);
  const Tokens tokens = {7};
  const auto first = cache.Insert({kNoPrefix, "", tokens}, BlockId(1));
  const auto again = cache.Insert({kNoPrefix, "", tokens}, BlockId(0));
  EXPECT_EQ(again.block, BlockId(1));
  EXPECT_EQ(again.prefix, first.prefix);
  EXPECT_EQ(cache.num_blocks(), 1);
}

TEST(PrefixCache, DoesNotFindWhatFollowedABlockThatCameBack) {
  PrefixCache cache(3);
  const Tokens a = {1};
  const Tokens b = {2};
  const auto old = cache.Insert({kNoPrefix, "", a}, BlockId(0));
  cache.Insert({old.prefix, "", b}, BlockId(1));
  cache.Evict(BlockId(0));
  EXPECT_FALSE(cache.Find({kNoPrefix, "", a}));
  const auto fresh = cache.Insert({kNoPrefix, "", a}, BlockId(2));
  EXPECT_NE(fresh.prefix, old.prefix);
  EXPECT_FALSE(cache.Find({fresh.prefix, "", b}));
  cache.Evict(BlockId(1));
  cache.Evict(BlockId(2));
  EXPECT_EQ(cache.num_blocks(), 0);
}

// FALSIFY-PKV-008: against a map from whole prefixes, with few tokens so that most things are
// nearly equal.
TEST(PrefixCache, AgreesWithAMapOfWholePrefixes) {
  constexpr std::uint32_t kSeed = 5;
  constexpr std::int32_t kBlocks = 40;
  std::mt19937 random(kSeed);
  PrefixCache cache(kBlocks);
  std::map<std::pair<std::string, Tokens>, BlockId> whole;  // salt and all tokens to its end
  std::map<BlockId, std::pair<std::string, Tokens>> held;
  for (int call = 0; call < 20000; ++call) {
    SCOPED_TRACE(::testing::Message() << "seed " << kSeed << " call " << call);
    const std::string salt(1, static_cast<char>('a' + random() % 2));
    PrefixId before = kNoPrefix;
    Tokens all;
    for (std::uint32_t depth = 0; depth <= random() % 4; ++depth) {
      const Tokens tokens = {static_cast<std::uint32_t>(random() % 2), 9};
      all.insert(all.end(), tokens.begin(), tokens.end());
      const auto found = cache.Find({before, salt, tokens});
      const auto expected = whole.find({salt, all});
      ASSERT_EQ(found.has_value(), expected != whole.end());
      if (found) {
        ASSERT_EQ(found->block, expected->second);
        before = found->prefix;
        continue;
      }
      const BlockId block(static_cast<std::int32_t>(random() % kBlocks));
      if (held.contains(block)) break;
      before = cache.Insert({before, salt, tokens}, block).prefix;
      whole[{salt, all}] = block;
      held[block] = {salt, all};
    }
    if (random() % 4 != 0 || held.empty()) continue;
    // A prefix goes with all that follow it, the last first.
    auto victim = held.begin();
    std::advance(victim, random() % held.size());
    const auto [victim_salt, prefix] = victim->second;
    for (auto at = held.begin(); at != held.end();) {
      const auto& [other_salt, tokens] = at->second;
      const bool follows = other_salt == victim_salt && tokens.size() >= prefix.size() &&
                           std::equal(prefix.begin(), prefix.end(), tokens.begin());
      if (follows) {
        cache.Evict(at->first);
        whole.erase(at->second);
        at = held.erase(at);
      } else {
        ++at;
      }
    }
  }
  EXPECT_EQ(cache.num_blocks(), static_cast<std::int32_t>(held.size()));
}

}  // namespace
}  // namespace millrace
