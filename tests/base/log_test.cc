#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

namespace millrace {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Logged(LogFormat format, LogLevel level) {
  ConfigureLog(LogLevel::kInfo, format);
  ::testing::internal::CaptureStderr();
  Log(level, "two\nlines", {{"key", "a \"b\""}});
  return ::testing::internal::GetCapturedStderr();
}

TEST(Log, KeepsAnEventOnOneLine) {
  const std::string text = Logged(LogFormat::kText, LogLevel::kInfo);
  EXPECT_THAT(text, HasSubstr("info two\\u000alines key=\"a \\\"b\\\"\""));
  EXPECT_THAT(text, EndsWith("\n"));
  EXPECT_THAT(text.substr(0, text.size() - 1), Not(HasSubstr("\n")));
}

TEST(Log, WritesNoCommandToATerminal) {
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    ConfigureLog(LogLevel::kInfo, format);
    ::testing::internal::CaptureStderr();
    // An escape, a delete, and the same escape's other form, U+009B, beside letters that begin
    // alike.
    Log(LogLevel::kInfo, "m",
        {{"key",
          "\033[2J\x7F\xC2\x9B"
          "2J\xC2\xA0\xC3\x9B"}});
    EXPECT_THAT(::testing::internal::GetCapturedStderr(),
                HasSubstr("\\u001b[2J\\u007f\\u009b2J\xC2\xA0\xC3\x9B"));
  }
}

TEST(Log, WritesJsonThatIsJson) {
  const std::string text = Logged(LogFormat::kJson, LogLevel::kError);
  EXPECT_THAT(text, HasSubstr(R"("level":"error","message":"two\u000alines","key":"a \"b\""})"));
}

TEST(Log, WritesUtf8WhateverItIsGiven) {
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    ConfigureLog(LogLevel::kInfo, format);
    ::testing::internal::CaptureStderr();
    Log(LogLevel::kInfo, "m", {{"file", "caf\xE9.gguf"}});
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("caf\\ufffd.gguf"));
  }
}

TEST(Log, WritesNumbersAsNumbers) {
  ConfigureLog(LogLevel::kInfo, LogFormat::kJson);
  ::testing::internal::CaptureStderr();
  Log(LogLevel::kInfo, "m", {{"n", 7}, {"x", 0.25}, {"y", NAN}, {"text", "7"}});
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr(R"("n":7,"x":0.25,"y":"nan","text":"7"})"));
}

// Nobody reads the other end: the lines that do not fit are dropped, counted, and hold nobody up.
TEST(Log, NeverWaitsForWhoReads) {
  ConfigureLog(LogLevel::kInfo, LogFormat::kText);
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const int kept = dup(STDERR_FILENO);
  ASSERT_EQ(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
  constexpr int kLines = 2000;  // of 100 bytes and more: more than the 64 KiB of a pipe
  for (int i = 0; i < kLines; ++i) Log(LogLevel::kInfo, std::string(100, 'x'));
  std::string read_first(1 << 20, '\0');
  read_first.resize(static_cast<std::size_t>(read(ends[0], read_first.data(), read_first.size())));
  Log(LogLevel::kInfo, "after");
  std::string rest(1 << 20, '\0');
  rest.resize(static_cast<std::size_t>(read(ends[0], rest.data(), rest.size())));
  ASSERT_EQ(dup2(kept, STDERR_FILENO), STDERR_FILENO);
  for (const int fd : {kept, ends[0], ends[1]}) close(fd);
  const auto written = std::count(read_first.begin(), read_first.end(), '\n');
  EXPECT_LT(written, kLines);
  EXPECT_EQ(read_first.back(), '\n') << "whole lines only";
  EXPECT_THAT(rest, HasSubstr("lines=" + std::to_string(kLines - written) + "\n"));
  EXPECT_THAT(rest, EndsWith("after\n"));
}

TEST(Log, LeavesOutWhatIsBelowTheLevel) {
  EXPECT_EQ(Logged(LogFormat::kText, LogLevel::kDebug), "");
}

TEST(Log, NamesWhatALevelMayBe) {
  EXPECT_EQ(*ParseLogLevel("warning"), LogLevel::kWarning);
  EXPECT_THAT(std::string(ParseLogLevel("loud").status().message()),
              HasSubstr("debug, info, warning or error"));
  EXPECT_EQ(*ParseLogFormat("json"), LogFormat::kJson);
  EXPECT_FALSE(ParseLogFormat("xml").ok());
}

}  // namespace
}  // namespace millrace
