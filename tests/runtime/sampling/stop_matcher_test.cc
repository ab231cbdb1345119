#include "runtime/sampling/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace millrace {
namespace {

struct Found {
  std::string text;
  std::optional<std::uint32_t> hit;
};

// Feeds `text` in pieces until a hit; what is held back at the end is text.
Found Feed(StopMatcher matcher, const std::vector<std::string>& pieces) {
  Found found;
  for (const std::string& piece : pieces) {
    const StopMatcher::Step step = matcher.Push(piece);
    found.text += step.released;
    found.hit = step.hit;
    if (found.hit) return found;
  }
  found.text += matcher.Flush();
  return found;
}

// The definition, by trying every end: the match that ends first, of those the longest.
Found Naive(const std::vector<std::string>& stops, bool include, const std::string& text) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::optional<std::uint32_t> best;
    for (std::uint32_t i = 0; i < stops.size(); ++i) {
      if (!text.substr(0, end).ends_with(stops[i])) continue;
      if (!best || stops[i].size() > stops[*best].size()) best = i;
    }
    if (best) return {text.substr(0, end - (include ? 0 : stops[*best].size())), best};
  }
  return {text, std::nullopt};
}

TEST(StopMatcher, ReleasesEverythingWithoutStopStrings) {
  StopMatcher matcher;
  EXPECT_EQ(matcher.Push("abc").released, "abc");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStopString) {
  StopMatcher matcher({"stop"}, false);
  EXPECT_EQ(matcher.Push("a st").released, "a ");
  EXPECT_EQ(matcher.Push("").released, "");
  EXPECT_EQ(matcher.Push("ar").released, "star");
  EXPECT_EQ(matcher.Push("sto").released, "");
  EXPECT_EQ(matcher.Flush(), "sto");
}

TEST(StopMatcher, FindsAStopStringAcrossPieces) {
  EXPECT_EQ(Feed(StopMatcher({"stop"}, false), {"a s", "to", "p b"}).text, "a ");
  EXPECT_EQ(Feed(StopMatcher({"stop"}, true), {"a s", "to", "p b"}).text, "a stop");
}

TEST(StopMatcher, FindsAMatchThatBeginsInsideAFailedOne) {
  EXPECT_EQ(Feed(StopMatcher({"aab"}, false), {"aaa", "ab"}).text, "aa");
  EXPECT_EQ(Feed(StopMatcher({"abab!"}, false), {"abab", "ab!"}).text, "ab");
}

TEST(StopMatcher, EqualsTheDefinitionHoweverTheTextIsCut) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 rng(seed);
  const auto letters = [&rng](std::size_t length) {
    std::string text;
    for (std::size_t i = 0; i < length; ++i) text += static_cast<char>('a' + rng() % 2);
    return text;
  };
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stops;
    for (std::size_t i = 0; i < 1 + rng() % 3; ++i) stops.push_back(letters(1 + rng() % 7));
    const bool include = rng() % 2 == 0;
    const std::string text = letters(rng() % 40);
    std::vector<std::string> pieces;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t size = rng() % 5;
      pieces.push_back(text.substr(at, size));
      at += pieces.back().size();
    }
    const Found got = Feed(StopMatcher(stops, include), pieces);
    const Found want = Naive(stops, include, text);
    ASSERT_EQ(got.text, want.text) << text;
    ASSERT_EQ(got.hit.has_value(), want.hit.has_value());
    if (want.hit) {
      ASSERT_EQ(stops[*got.hit], stops[*want.hit]);
    }
  }
}

}  // namespace
}  // namespace millrace
