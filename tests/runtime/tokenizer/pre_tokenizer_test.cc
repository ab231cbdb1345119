#include "runtime/tokenizer/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/tokenizer/nfc.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Words(PreTokenizer kind, std::string_view text) {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = WordEnd(kind, text, begin);
    words.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

std::vector<std::string> Qwen2(std::string_view text) { return Words(PreTokenizer::kQwen2, text); }
std::vector<std::string> SmolLm(std::string_view text) {
  return Words(PreTokenizer::kSmolLm, text);
}

std::vector<std::string> LlamaBpe(std::string_view text) {
  return Words(PreTokenizer::kLlamaBpe, text);
}
std::vector<std::string> Gpt2(std::string_view text) { return Words(PreTokenizer::kGpt2, text); }

TEST(PreTokenizer, LetsOneCharacterLeadAWordOfQwen2) {
  EXPECT_THAT(Qwen2("a b\tc.d\ne"), ElementsAre("a", " b", "\tc", ".d", "\n", "e"));
  EXPECT_THAT(Qwen2("\u00a0x  y"), ElementsAre("\u00a0x", " ", " y"));
}

TEST(PreTokenizer, LetsOnlyASpaceLeadAWordOfSmolLm) {
  EXPECT_THAT(SmolLm("a b\tc.d\ne"), ElementsAre("a", " b", "\t", "c", ".", "d", "\n", "e"));
}

TEST(PreTokenizer, SplitsEveryDigit) {
  EXPECT_THAT(Qwen2("12 3"), ElementsAre("1", "2", " ", "3"));
  EXPECT_THAT(SmolLm("x12²"), ElementsAre("x", "1", "2", "²"));
}

TEST(PreTokenizer, EndsSmolLmsSpacesAtADigitAsAtTheEndOfTheText) {
  EXPECT_THAT(SmolLm("a   1"), ElementsAre("a", "   ", "1"));
  EXPECT_THAT(Qwen2("a   1"), ElementsAre("a", "  ", " ", "1"));
}

TEST(PreTokenizer, FoldsContractionsOnlyForQwen2) {
  EXPECT_THAT(Qwen2("it's IT'LL x'\u017f 'rx\n'rx"),
              ElementsAre("it", "'s", " IT", "'LL", " x", "'\u017f", " '", "rx", "\n", "'rx"));
  EXPECT_THAT(SmolLm("it's IT'LL"), ElementsAre("it", "'s", " IT", "'", "LL"));
}

TEST(PreTokenizer, KeepsNewlinesWithWhatQwen2PutsThemTo) {
  EXPECT_THAT(Qwen2("a!\n\n b"), ElementsAre("a", "!\n\n", " b"));
  EXPECT_THAT(Qwen2("a \n \n  b"), ElementsAre("a", " \n \n", " ", " b"));
  EXPECT_THAT(SmolLm("a!\n\n b"), ElementsAre("a", "!", "\n\n", " b"));
}

TEST(PreTokenizer, TakesUpToThreeDigitsForLlamaAndAnyNumberForGpt2) {
  EXPECT_THAT(LlamaBpe("12345 67a²"), ElementsAre("123", "45", " ", "67", "a", "²"));
  EXPECT_THAT(LlamaBpe("!1 IT'S\n\n x"), ElementsAre("!", "1", " IT", "'S", "\n\n", " x"));
  EXPECT_THAT(Gpt2("12345 67a²"), ElementsAre("12345", " 67", "a", "²"));
  EXPECT_THAT(Gpt2("a  1\t2 IT'S it's"),
              ElementsAre("a", " ", " 1", "\t", "2", " IT", "'", "S", " it", "'s"));
}

TEST(PreTokenizer, DoesNotTakeTheMongolianVowelSeparatorForSpace) {
  EXPECT_THAT(Qwen2(" \u180e!"), ElementsAre(" \u180e!"));
}

TEST(PreTokenizer, NamesWhatItDoesNotKnow) {
  const auto found = FindPreTokenizer("tekken");
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.status().code(), absl::StatusCode::kUnimplemented);
}

TEST(Nfc, ComposesDecomposesAndReorders) {
  EXPECT_EQ(NormalizeNfc("e\u0301"), "\u00e9");
  EXPECT_EQ(NormalizeNfc("\u212b"), "\u00c5");
  EXPECT_EQ(NormalizeNfc("\u1100\u1161\u11a8"), "\uac01");
  EXPECT_EQ(NormalizeNfc("q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(NormalizeNfc("\u0958"), "\u0915\u093c") << "excluded from composition";
}

TEST(Nfc, LeavesCodePointsNewerThanTheReferencesTablesWhereTheyAre) {
  // Both marks are of class 230 and 220 in Unicode 15; the reference knows neither.
  EXPECT_EQ(NormalizeNfc("a\u0898\u0316"), "a\u0898\u0316");
  EXPECT_EQ(NormalizeNfc("\U00011935\U00011930"), "\U00011935\U00011930");
  EXPECT_EQ(NormalizeNfc("a\u1ac1\u0301"), "a\u1ac1\u0301");
}

TEST(Nfc, IsTrivialOnlyForTextWithoutMarks) {
  EXPECT_TRUE(IsTriviallyNfc("plain \u00e9\u02ff"));
  EXPECT_FALSE(IsTriviallyNfc("e\u0301"));
}

}  // namespace
}  // namespace millrace
