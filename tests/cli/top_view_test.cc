#include "cli/top_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace millrace::cli {
namespace {

using ::testing::HasSubstr;

std::string Text(const TopState& state, const TopSize& size = {}) {
  std::string text;
  for (const TopLine& line : DrawTop(state, size)) text += line.text + '\n';
  return text;
}

TEST(TopViewTest, NothingOfAServerIsACommandToTheTerminal) {
  TopState state;
  state.model = "a\033[2Jb";
  state.device =
      "c\xC2\x9B"
      "2Jd\x7F";  // CSI of the second range, as UTF-8
  state.trouble =
      "e\x9B"
      "2Jf (UNAVAILABLE)";  // and as one byte
  const std::string text = Text(state);
  EXPECT_THAT(text, HasSubstr("a?[2Jb"));
  EXPECT_THAT(text, HasSubstr("c?2Jd?"));
  EXPECT_THAT(text, HasSubstr("e\xEF\xBF\xBD"
                              "2Jf"));
}

TEST(TopViewTest, ATerminalWithoutUtf8GetsAsciiAlone) {
  TopState state;
  state.model = "é";
  state.kv_usage = 0.5;
  state.history = {1, 2, 3};
  const std::string text = Text(state, {.utf8 = false});
  EXPECT_TRUE(std::all_of(text.begin(), text.end(), [](char c) {
    return c == '\n' || (c >= ' ' && c <= '~');
  })) << text;
  EXPECT_THAT(Text(state), HasSubstr("é"));
}

TEST(TopViewTest, LinesFitTheTerminal) {
  TopState state;
  state.model = std::string(200, 'm');
  state.history = std::vector<double>(200, 1.0);
  const std::vector<TopLine> lines = DrawTop(state, {.columns = 40, .rows = 5, .utf8 = false});
  EXPECT_EQ(lines.size(), 5U);
  for (const TopLine& line : lines) EXPECT_LE(line.text.size(), 40U) << line.text;
}

TEST(TopViewTest, SilenceIsToldWithItsLength) {
  TopState state;
  state.trouble = "here:1 does not answer (UNAVAILABLE: x; y)";
  state.silent_seconds = 12;
  EXPECT_THAT(Text(state, {.columns = 200}),
              HasSubstr("here:1 does not answer (UNAVAILABLE: x; y), for 12 s; trying again"));
}

}  // namespace
}  // namespace millrace::cli
