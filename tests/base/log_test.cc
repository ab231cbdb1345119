#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

TEST(Log, WritesJsonThatIsJson) {
  const std::string text = Logged(LogFormat::kJson, LogLevel::kError);
  EXPECT_THAT(text, HasSubstr(R"("level":"error","message":"two\u000alines","key":"a \"b\""})"));
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
