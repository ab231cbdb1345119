#include "base/printable.h"

#include <gtest/gtest.h>

#include <string>

#include "base/utf8.h"

namespace millrace {
namespace {

using namespace std::string_literals;

std::string Printable(std::string_view text) {
  std::string out;
  AppendPrintable(text, &out);
  return out;
}

std::string Quotable(std::string_view text) {
  std::string out;
  AppendQuotable(text, &out);
  return out;
}

TEST(Printable, TextStaysAsItIs) {
  for (const std::string text : {"", "plain", "Grüße, 世界 🌍", "\xC2\xA0", "a \\n \"b\""}) {
    EXPECT_EQ(Printable(text), text);
  }
}

TEST(Printable, ControlCharactersBecomeEscapes) {
  EXPECT_EQ(Printable("\033]0;title\a"), "\\u001b]0;title\\u0007");
  EXPECT_EQ(Printable("a\nb\x7F"), "a\\u000ab\\u007f");
  EXPECT_EQ(Printable("\0"s), "\\u0000");
  // U+009B is an escape and a bracket in one; U+00A0 is none.
  EXPECT_EQ(Printable("\xC2\x9B"
                      "2J\xC2\xA0"),
            "\\u009b2J\xC2\xA0");
}

TEST(Printable, WhatIsNotUtf8IsReplaced) {
  EXPECT_EQ(Printable("caf\xE9.gguf"), "caf\\ufffd.gguf");
  EXPECT_EQ(Printable("\xFF\xFE"), "\\ufffd\\ufffd");
  EXPECT_EQ(Printable("cut \xE4\xB8"), "cut \\ufffd");            // the end of a text
  EXPECT_EQ(Printable("\xED\xA0\x80"), "\\ufffd\\ufffd\\ufffd");  // a surrogate
  EXPECT_EQ(Printable("\xC0\x9B"), "\\ufffd\\ufffd");             // an overlong form of an escape
  EXPECT_EQ(Printable("\x9B"), "\\ufffd");  // an escape to terminals that expect Latin-1
}

TEST(Printable, QuotesAndBackslashesAreEscapedWithinQuotes) {
  EXPECT_EQ(Quotable("a \"b\" \\ \xFF\033"), "a \\\"b\\\" \\\\ \\ufffd\\u001b");
}

// Every pair of bytes: one line of valid UTF-8 without control characters comes out.
TEST(Printable, NothingElseComesOut) {
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      const std::string out =
          Printable(std::string{static_cast<char>(first), static_cast<char>(second)});
      ASSERT_EQ(ValidUtf8Prefix(out), out.size()) << first << " " << second;
      for (std::size_t at = 0; at < out.size();) {
        const char32_t c = NextCodePoint(out, &at);
        ASSERT_TRUE(c >= 0x20 && (c < 0x7F || c >= 0xA0)) << first << " " << second;
      }
    }
  }
}

}  // namespace
}  // namespace millrace
