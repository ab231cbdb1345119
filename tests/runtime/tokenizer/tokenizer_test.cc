#include "runtime/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/utf8.h"
#include "runtime/tokenizer/nfc.h"
#include "tests/runtime/tokenizer/own_vocabulary.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<std::uint32_t>;

constexpr EncodeOptions kParse = {.parse_special = true, .add_special = false};
constexpr EncodeOptions kPlain = {.parse_special = false, .add_special = false};

std::string MessageOf(const absl::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

std::uint32_t IdOf(const Tokenizer& tokenizer, std::string_view text) {
  const auto id = tokenizer.FindToken(text);
  EXPECT_TRUE(id.has_value()) << text;
  return id.value_or(0);
}

void ExpectRefused(TokenizerSpec spec, absl::StatusCode code, std::string_view what) {
  const auto tokenizer = Tokenizer::Create(std::move(spec));
  ASSERT_FALSE(tokenizer.ok()) << what;
  EXPECT_EQ(tokenizer.status().code(), code);
  EXPECT_THAT(MessageOf(tokenizer.status()), HasSubstr(std::string(what)));
}

TEST(Tokenizer, EqualsHuggingFaceOnTheCommittedVectors) {
  const auto qwen2 = OwnTokenizer("qwen2");
  const auto smollm = OwnTokenizer("smollm");
  const auto llama = OwnTokenizer("llama-bpe");
  const auto gpt2 = OwnTokenizer("gpt-2");
  std::ifstream file("tests/golden/tokenizer/vectors.jsonl");
  int count = 0;
  for (std::string line; std::getline(file, line); ++count) {
    SCOPED_TRACE(line);
    const nlohmann::json vector = nlohmann::json::parse(line);
    const auto text = vector["text"].get<std::string>();
    EXPECT_EQ(qwen2->Encode(text, kParse), vector["qwen2"].get<Ids>());
    EXPECT_EQ(qwen2->Encode(text, kPlain), vector["qwen2_plain"].get<Ids>());
    EXPECT_EQ(smollm->Encode(text, kParse), vector["smollm"].get<Ids>());
    EXPECT_EQ(llama->Encode(text, kParse), vector["llama-bpe"].get<Ids>());
    EXPECT_EQ(gpt2->Encode(text, kParse), vector["gpt-2"].get<Ids>());
  }
  EXPECT_EQ(count, 300);
}

// Llama 3's vocabulary has words that its merges do not reach.
TEST(Tokenizer, TakesAWholeWordBeforeItsMergesForLlamaOnly) {
  TokenizerSpec spec;
  spec.tokens = {"a", "b", "c", "ab", "abc", "<|begin|>"};
  spec.types.assign(5, TokenType::kNormal);
  spec.types.push_back(TokenType::kControl);
  spec.merges = {"a b"};
  spec.bos = 5;
  spec.pre = "gpt-2";
  EXPECT_THAT((*Tokenizer::Create(spec))->Encode("abc", {}), ElementsAre(3, 2));
  spec.pre = "llama-bpe";  // which also begins with its begin token where the file does not say
  EXPECT_THAT((*Tokenizer::Create(spec))->Encode("abc", {}), ElementsAre(5, 4));
  spec.add_bos = false;
  EXPECT_THAT((*Tokenizer::Create(spec))->Encode("abc abcc", {}), ElementsAre(4, 3, 2, 2));
}

TEST(Tokenizer, EncodesNothingAsNothing) {
  const auto tokenizer = OwnTokenizer("qwen2");
  EXPECT_TRUE(tokenizer->Encode("", kParse).empty());
  EXPECT_TRUE(tokenizer->EncodeRuns({}, false).empty());
  EXPECT_EQ(tokenizer->Decode({}, true).value(), "");
}

TEST(Tokenizer, PrefersTheLongestAddedToken) {
  const auto tokenizer = OwnTokenizer("qwen2");
  EXPECT_THAT(tokenizer->Encode("<think>!", kParse), ElementsAre(IdOf(*tokenizer, "<think>!")));
  EXPECT_EQ(tokenizer->Encode("<think>?", kParse).front(), IdOf(*tokenizer, "<think>"));
}

TEST(Tokenizer, ParsesUserDefinedTokensEvenWhereControlTokensAreText) {
  const auto tokenizer = OwnTokenizer("qwen2");
  EXPECT_THAT(tokenizer->Encode("<think>", kPlain), ElementsAre(IdOf(*tokenizer, "<think>")));
  EXPECT_GT(tokenizer->Encode("<|im_end|>", kPlain).size(), 1U);
}

TEST(Tokenizer, FallsBackToAShorterUserDefinedTokenWhenAControlTokenIsNotTrusted) {
  TokenizerSpec spec = OwnVocabulary("qwen2");
  spec.tokens.push_back("<think>|stop");
  spec.types.push_back(TokenType::kControl);
  const auto tokenizer = Tokenizer::Create(spec).value();
  EXPECT_THAT(tokenizer->Encode("<think>|stop", kParse), ElementsAre(1000));
  EXPECT_EQ(tokenizer->Encode("<think>|stop", kPlain).front(), IdOf(*tokenizer, "<think>"));
}

TEST(Tokenizer, AddsTheBeginAndEndTokensTheFileAsksFor) {
  TokenizerSpec spec = OwnVocabulary("qwen2");
  spec.bos = 1;
  spec.eos = 2;
  spec.add_bos = true;
  spec.add_eos = true;
  const auto tokenizer = Tokenizer::Create(spec).value();
  EXPECT_THAT(tokenizer->Encode("", {.parse_special = true, .add_special = true}),
              ElementsAre(1, 2));
  EXPECT_TRUE(tokenizer->Encode("", kParse).empty());
  const Ids ids = tokenizer->EncodeRuns({{{.text = "the", .trusted = true}}}, true);
  EXPECT_EQ(ids.front(), 1U);
  EXPECT_EQ(ids.back(), 2U);
}

TEST(Tokenizer, KnowsTheTokensThatEndAGeneration) {
  TokenizerSpec spec = OwnVocabulary("qwen2");
  spec.eos = 5;
  spec.extra_end_tokens = {7, 5};
  const auto tokenizer = Tokenizer::Create(spec).value();
  const auto ends = tokenizer->end_tokens();
  EXPECT_THAT(Ids(ends.begin(), ends.end()),
              ElementsAre(5, 7, IdOf(*tokenizer, "<|endoftext|>"), IdOf(*tokenizer, "<|im_end|>"),
                          IdOf(*tokenizer, "<|fim_pad|>")));
}

TEST(Tokenizer, KnowsTheEndTokensOfEveryChatFormatItServes) {
  TokenizerSpec spec = OwnVocabulary("qwen2");
  for (const char* text : {"<|repo_name|>", "<|file_sep|>", "<|eot_id|>", "<|end_of_text|>",
                           "<|eom_id|>", "</s>", "<|fim_middle|>"}) {
    spec.tokens.push_back(text);
    spec.types.push_back(TokenType::kControl);
  }
  const auto tokenizer = Tokenizer::Create(spec).value();
  const auto ends = tokenizer->end_tokens();
  EXPECT_THAT(Ids(ends.begin(), ends.end()),
              ElementsAre(IdOf(*tokenizer, "<|endoftext|>"), IdOf(*tokenizer, "<|im_end|>"),
                          IdOf(*tokenizer, "<|fim_pad|>"), 1000, 1001, 1002, 1003, 1004, 1005));
}

TEST(Tokenizer, DoesNotEndAGenerationAtAnOrdinaryTokenThatReadsLikeAnEndToken) {
  TokenizerSpec spec = OwnVocabulary("qwen2");
  spec.tokens.push_back("</s>");
  spec.types.push_back(TokenType::kNormal);
  const auto tokenizer = Tokenizer::Create(spec).value();
  EXPECT_THAT(tokenizer->end_tokens(), ::testing::Not(::testing::Contains(1000)));
}

TEST(Tokenizer, FindsTokensByTheirText) {
  const auto tokenizer = OwnTokenizer("qwen2");
  const auto space = tokenizer->FindToken(" ");
  ASSERT_TRUE(space.has_value());
  EXPECT_EQ(tokenizer->token_bytes()->bytes(*space), " ");
  EXPECT_FALSE(tokenizer->FindToken("Ġ").has_value()) << "the alphabet of the file is not text";
  EXPECT_FALSE(tokenizer->FindToken("no such token").has_value());
  EXPECT_EQ(tokenizer->Decode({{IdOf(*tokenizer, "<|im_end|>")}}, false).value(), "<|im_end|>");
}

TEST(Tokenizer, SkipsControlTokensButNeverUserDefinedOnesWhenDecoding) {
  const auto tokenizer = OwnTokenizer("qwen2");
  const Ids ids = tokenizer->Encode("<|im_start|>a<think>b<|im_end|>", kParse);
  EXPECT_EQ(tokenizer->Decode(ids, true).value(), "a<think>b");
  EXPECT_EQ(tokenizer->Decode(ids, false).value(), "<|im_start|>a<think>b<|im_end|>");
}

TEST(Tokenizer, RefusesToDecodeAnIdOutsideTheVocabulary) {
  const auto tokenizer = OwnTokenizer("qwen2");
  const auto text = tokenizer->Decode({{1000}}, false);
  ASSERT_FALSE(text.ok());
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(text.status()), HasSubstr("1000"));
}

TEST(Tokenizer, GivesUnusedTokensNoTextAndNeverProducesThem) {
  TokenizerSpec spec = OwnVocabulary("qwen2");
  spec.tokens.push_back("[PAD1000]");
  spec.types.push_back(TokenType::kUnused);
  const auto tokenizer = Tokenizer::Create(spec).value();
  EXPECT_EQ(tokenizer->vocab_size(), 1001U);
  EXPECT_EQ(tokenizer->token_bytes()->bytes(1000), "");
  EXPECT_FALSE(tokenizer->FindToken("[PAD1000]").has_value());
  EXPECT_GT(tokenizer->Encode("[PAD1000]", kParse).size(), 1U);
}

TEST(Tokenizer, LeavesOutBytesThatAreNoToken) {
  TokenizerSpec spec;
  spec.pre = "qwen2";
  spec.tokens = {"a", "c", "ac"};
  spec.types.assign(3, TokenType::kNormal);
  spec.merges = {"a c"};
  const auto tokenizer = Tokenizer::Create(spec).value();
  EXPECT_THAT(tokenizer->Encode("abc", kParse), ElementsAre(2)) << "its neighbours then merge";
  EXPECT_TRUE(tokenizer->Encode("b", kParse).empty());
}

TEST(Tokenizer, MergesTheLowestRankFirstAndTheLeftmostOfEquals) {
  TokenizerSpec spec;
  spec.pre = "qwen2";
  spec.tokens = {"a", "b", "aa", "ab", "aab"};
  spec.types.assign(5, TokenType::kNormal);
  spec.merges = {"a a", "a b", "aa b"};
  const auto tokenizer = Tokenizer::Create(spec).value();
  EXPECT_THAT(tokenizer->Encode("aaab", kParse), ElementsAre(2, 3));
  EXPECT_THAT(tokenizer->Encode("aab", kParse), ElementsAre(4));
  EXPECT_THAT(tokenizer->Encode("aaaaa", kParse), ElementsAre(2, 2, 0));
}

TEST(Tokenizer, RefusesWhatIsWrongByTheNameOfItsKey) {
  using absl::StatusCode;
  const TokenizerSpec good = OwnVocabulary("qwen2");
  const auto refused = [&good](auto spoil, StatusCode code, std::string_view what) {
    TokenizerSpec spec = good;
    spoil(&spec);
    ExpectRefused(std::move(spec), code, what);
  };
  refused([](auto* s) { s->pre = "tekken"; }, StatusCode::kUnimplemented, "'tekken'");
  refused([](auto* s) { s->pre = "tekken"; }, StatusCode::kUnimplemented,
          "qwen2, smollm, llama-bpe and gpt-2");
  refused([](auto* s) { s->types.pop_back(); }, StatusCode::kInvalidArgument, "token_type");
  refused([](auto* s) { s->bos = 1000; }, StatusCode::kInvalidArgument, "bos_token_id");
  refused([](auto* s) { s->eos = 4000000000; }, StatusCode::kInvalidArgument, "eos_token_id");
  refused([](auto* s) { s->extra_end_tokens = {1000}; }, StatusCode::kInvalidArgument, "1000");
  refused([](auto* s) { s->add_bos = true; }, StatusCode::kInvalidArgument, "add_bos_token");
  refused([](auto* s) { s->add_eos = true; }, StatusCode::kInvalidArgument, "add_eos_token");
  refused([](auto* s) { s->merges[3] = "nospace"; }, StatusCode::kInvalidArgument, "merges[3]");
  refused([](auto* s) { s->merges[4] = "qqq zzz"; }, StatusCode::kInvalidArgument, "merges[4]");
  refused([](auto* s) { s->tokens.clear(); }, StatusCode::kInvalidArgument, "tokens");
}

TEST(EncodeRuns, EqualsEncodeOfTheWholeTextWhenAllIsTrusted) {
  const auto tokenizer = OwnTokenizer("qwen2");
  const std::vector<TextRun> runs = {{"<|im_st", true}, {"art|>user\nhel", true}, {"lo", true}};
  EXPECT_EQ(tokenizer->EncodeRuns(runs, false),
            tokenizer->Encode("<|im_start|>user\nhello", kParse));
}

TEST(EncodeRuns, MergesAcrossRunsAsInOneText) {
  const auto tokenizer = OwnTokenizer("qwen2");
  const std::vector<TextRun> runs = {{"to", true}, {"ken", false}, {" model", true}};
  EXPECT_EQ(tokenizer->EncodeRuns(runs, false), tokenizer->Encode("token model", kParse));
}

TEST(EncodeRuns, ComposesCharactersAcrossRuns) {
  const auto tokenizer = OwnTokenizer("qwen2");
  const std::vector<TextRun> runs = {{"e", true}, {"\u0301", false}};
  EXPECT_EQ(tokenizer->EncodeRuns(runs, false), tokenizer->Encode("\u00e9", kParse));
}

TEST(EncodeRuns, TakesAControlTokenThatIsPartlyUntrustedAsText) {
  const auto tokenizer = OwnTokenizer("qwen2");
  const std::vector<TextRun> runs = {{"<|im_", true}, {"end|>", false}, {"<|im_end|>", true}};
  Ids expected = tokenizer->Encode("<|im_end|>", kPlain);
  expected.push_back(IdOf(*tokenizer, "<|im_end|>"));
  EXPECT_EQ(tokenizer->EncodeRuns(runs, false), expected);
}

TEST(EncodeRuns, DoesNotLetAClientsBytesCompleteACharacterOfTheTemplate) {
  const auto tokenizer = OwnTokenizer("qwen2");
  const std::vector<TextRun> runs = {{"\xC3", false}, {"\xA9", true}};
  EXPECT_EQ(tokenizer->EncodeRuns(runs, false), tokenizer->Encode("\uFFFD\uFFFD", kParse));
}

// What a client writes between two trusted runs, control texts and parts of them among it.
std::string ClientText(std::mt19937_64* random) {
  static const std::vector<std::string> pieces = {
      "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|im_", "start|>", "end|>",
      "<|",           "|>",         "<think>",       "hello",       " ",     "\n",      "<",
      "\xE4\xB8\x96", "e\u0301",    "\xFF",          "123",         "'s",    "|"};
  std::string text;
  const std::size_t count = (*random)() % 6;
  for (std::size_t i = 0; i < count; ++i) text += pieces[(*random)() % pieces.size()];
  return text;
}

TEST(EncodeRuns, NeverMakesControlTokensOfAClientsText) {
  constexpr std::uint64_t kSeed = 20240611;
  SCOPED_TRACE(kSeed);
  const auto tokenizer = OwnTokenizer("qwen2");
  const auto bytes = tokenizer->token_bytes();
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < 100'000; ++i) {
    const std::string user = ClientText(&random);
    const std::string system = ClientText(&random);
    const std::vector<TextRun> runs = {{"<|im_start|>system\n<|im_", true},
                                       {system, false},
                                       {"<|im_end|>\n<", true},
                                       {user, false},
                                       {"|><|im_end|>", true}};
    const Ids ids = tokenizer->EncodeRuns(runs, false);
    const auto special = std::count_if(ids.begin(), ids.end(),
                                       [&](std::uint32_t id) { return bytes->is_special(id); });
    // An empty client text joins the trusted runs around it into one, but here never to a token.
    ASSERT_EQ(special, 3) << "system: " << system << "\nuser: " << user;
  }
}

std::string RandomBytes(std::mt19937_64* random) {
  // Half of the bytes from a few that make valid, unfinished and combining sequences likely.
  static constexpr std::string_view kLikely = "a1 \n'<\xC3\xA9\xCC\x81\xE2\x82\xAC\xF0\x9F\x98\x80";
  std::string bytes((*random)() % 24, '\0');
  for (char& byte : bytes) {
    byte = (*random)() % 2 == 0 ? kLikely[(*random)() % kLikely.size()]
                                : static_cast<char>((*random)() & 0xFF);
  }
  return bytes;
}

TEST(Tokenizer, DecodesWhatItEncodedOfAnyBytes) {
  constexpr std::uint64_t kSeed = 7;
  SCOPED_TRACE(kSeed);
  const auto qwen2 = OwnTokenizer("qwen2");
  const auto smollm = OwnTokenizer("smollm");
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < 100'000; ++i) {
    const std::string bytes = RandomBytes(&random);
    const std::string repaired = ReplaceInvalidUtf8(bytes);
    ASSERT_EQ(qwen2->Decode(qwen2->Encode(bytes, kParse), false).value(), NormalizeNfc(repaired));
    ASSERT_EQ(smollm->Decode(smollm->Encode(bytes, kParse), false).value(), repaired);
  }
}

}  // namespace
}  // namespace millrace
