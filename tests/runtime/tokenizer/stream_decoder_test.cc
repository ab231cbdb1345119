#include "runtime/tokenizer/stream_decoder.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "base/utf8.h"

namespace millrace {
namespace {

struct Repair {
  std::string_view bytes;
  std::string_view text;
};

// One U+FFFD for each maximal part; the rows are cases of the Unicode standard's section 3.9.
constexpr Repair kRepairs[] = {
    {"", ""},
    {"plain", "plain"},
    {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "é€😀"},
    {"\xFF\x61", "\uFFFDa"},
    {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41",
     "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41"},
    {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41",
     "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41"},
    {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41\uFFFD\uFFFD\x42"},
    {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\x41"},
    {"a\xF0\x9F\x98", "a\uFFFD"},
    {"\xF4\x8F\xBF\xBF", "\U0010FFFF"},
};

TEST(ReplaceInvalidUtf8, ReplacesEachMaximalInvalidPartOnce) {
  for (const Repair& repair : kRepairs) {
    EXPECT_EQ(ReplaceInvalidUtf8(repair.bytes), repair.text);
  }
}

TEST(StreamDecoder, GivesTheSameTextByteByByte) {
  for (const Repair& repair : kRepairs) {
    StreamDecoder decoder;
    std::string text;
    for (const char byte : repair.bytes) text += decoder.Push({&byte, 1});
    text += decoder.Finish();
    EXPECT_EQ(text, repair.text);
  }
}

TEST(StreamDecoder, HoldsAnUnfinishedCharacterUntilItIsWhole) {
  StreamDecoder decoder;
  EXPECT_EQ(decoder.Push("a\xF0\x9F"), "a");
  EXPECT_EQ(decoder.Push("\x98"), "");
  EXPECT_EQ(decoder.Push("\x80"
                         "b"),
            "😀b");
  EXPECT_EQ(decoder.Finish(), "");
}

TEST(StreamDecoder, ReplacesAnUnfinishedCharacterAtTheEndAndStartsAfresh) {
  StreamDecoder decoder;
  EXPECT_EQ(decoder.Push("\xE2\x82"), "");
  EXPECT_EQ(decoder.Finish(), "\uFFFD");
  EXPECT_EQ(decoder.Finish(), "");
  EXPECT_EQ(decoder.Push("x"), "x");
}

TEST(StreamDecoder, EmitsWholeUtf8UnderAnyCuts) {
  constexpr std::uint64_t kSeed = 99;
  SCOPED_TRACE(kSeed);
  static constexpr std::string_view kLikely = "ab\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xED\xA0";
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes(random() % 40, '\0');
    for (char& byte : bytes) {
      byte = random() % 8 == 0 ? static_cast<char>(random() & 0xFF)
                               : kLikely[random() % kLikely.size()];
    }
    StreamDecoder decoder;
    std::string text;
    for (std::size_t position = 0; position < bytes.size();) {
      const std::size_t size = std::min<std::size_t>(random() % 5, bytes.size() - position);
      const std::string delta = decoder.Push(std::string_view(bytes).substr(position, size));
      ASSERT_EQ(ValidUtf8Prefix(delta), delta.size()) << "delta is not whole UTF-8";
      text += delta;
      position += size;
    }
    text += decoder.Finish();
    ASSERT_EQ(text, ReplaceInvalidUtf8(bytes));
  }
}

}  // namespace
}  // namespace millrace
