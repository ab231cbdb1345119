// Decoding with the KV cache gives what a full forward without one gives, to the bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/support/model_steps.h"

namespace millrace {
namespace {

using testing::Argmax;
using testing::Chunk;
using testing::ForwardAlone;
using testing::Iota;
using testing::Logits;
using testing::MustLoad;
using testing::Row;
using testing::RunStep;
using testing::SameBits;
using testing::Tokens;

constexpr char kDemoModel[] = "models/story-moe-q4_k_m.gguf";
constexpr std::size_t kGenerated = 34;  // more than two blocks of 16

Tokens Encode(const Tokenizer& tokenizer, const std::string& text) {
  Tokens tokens;
  for (const std::uint32_t id : tokenizer.Encode(text, {})) {
    tokens.push_back(static_cast<std::int32_t>(id));
  }
  return tokens;
}

struct Greedy {
  Tokens tokens;               // the prompt and what follows
  std::vector<Logits> logits;  // [vocab] of each generated token
};

// One prefill, then one token a step over the cache. The blocks are not in order, so that a wrong
// table entry cannot be right by accident.
Greedy DecodeCached(ModelRunner* runner, Tokens tokens) {
  Tokens blocks = Iota(runner->info().num_kv_blocks);
  std::reverse(blocks.begin(), blocks.end());
  Greedy out;
  std::int32_t computed = 0;
  for (std::size_t i = 0; i < kGenerated; ++i) {
    const auto count = static_cast<std::int32_t>(tokens.size()) - computed;
    const Chunk chunk{tokens, computed, count, blocks};
    const Logits logits = RunStep(runner, {&chunk, 1});
    if (logits.empty()) return out;
    const auto last = Row(logits, static_cast<std::size_t>(count) - 1, runner->info().vocab);
    computed += count;
    out.logits.emplace_back(last.begin(), last.end());
    tokens.push_back(Argmax(last));
  }
  out.tokens = tokens;
  return out;
}

// FALSIFY-KCE-001: greedy tokens with the cache equal those of full forwards without one. Here the
// logits are equal as well, to the bit, which implies it.
TEST(MoeKvCacheEquivalence, CachedDecodingEqualsAFullForwardOfEveryPrefix) {
  const LoadedModel cached = MustLoad(testing::SmallOptions(kDemoModel));
  const LoadedModel full = MustLoad(testing::SmallOptions(kDemoModel));
  ASSERT_TRUE(cached.runner && full.runner);
  for (const char* prompt :
       {"Once upon a time, there was a little fox", "The", "A boat and a kite."}) {
    SCOPED_TRACE(prompt);
    const Tokens start = Encode(*cached.tokenizer, prompt);
    const Greedy greedy = DecodeCached(cached.runner.get(), start);
    ASSERT_EQ(greedy.logits.size(), kGenerated);
    for (std::size_t i = 0; i < kGenerated; ++i) {
      SCOPED_TRACE("generated token " + std::to_string(i));
      const std::size_t length = start.size() + i;
      const Logits logits = ForwardAlone(full.runner.get(), std::span(greedy.tokens).first(length));
      const auto last = Row(logits, length - 1, full.runner->info().vocab);
      ASSERT_EQ(Argmax(last), greedy.tokens[length]);
      ASSERT_TRUE(SameBits(last, greedy.logits[i]));
    }
  }
}

}  // namespace
}  // namespace millrace
