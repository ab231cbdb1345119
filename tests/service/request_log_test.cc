// The line that a request leaves: what is in it, and what is not.
#include "service/request_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> Shown(const RequestRecord& record) {
  std::vector<std::string> out;
  for (const LogField& field : RequestFields(record)) {
    out.push_back(std::string(field.name) + (field.number ? "=" : ":") + field.value);
  }
  return out;
}

TEST(RequestLog, SaysAllThatIsKnownOfAFinishedRequest) {
  RequestRecord record{.method = "Generate",
                       .request_id = "r1",
                       .trace = TraceContext{.trace_id = "t", .parent_id = "p"},
                       .prompt_tokens = 7,
                       .finish_reason = "length",
                       .duration = std::chrono::milliseconds(1500)};
  record.usage = RequestUsage{.prompt_tokens = 7,
                              .completion_tokens = 5,
                              .cached_tokens = 4,
                              .preemptions = 1,
                              .queue = std::chrono::milliseconds(250),
                              .prefill = std::chrono::milliseconds(500)};
  EXPECT_THAT(Shown(record), ElementsAre("request_id:r1", "method:Generate", "code:OK",
                                         "trace_id:t", "parent_span_id:p", "prompt_tokens=7",
                                         "cached_tokens=4", "generated_tokens=5", "preemptions=1",
                                         "queue_seconds=0.25", "time_to_first_token_seconds=0.75",
                                         "duration_seconds=1.5", "finish_reason:length"));
}

TEST(RequestLog, LeavesOutWhatIsNotKnown) {
  const RequestRecord record{.method = "Generate",
                             .code = grpc::StatusCode::RESOURCE_EXHAUSTED,
                             .reason = "QUEUE_FULL",
                             .duration = std::chrono::milliseconds(1)};
  EXPECT_THAT(Shown(record), ElementsAre("method:Generate", "code:RESOURCE_EXHAUSTED",
                                         "reason:QUEUE_FULL", "duration_seconds=0.001"));
}

TEST(RequestLog, HasNoTimeToATokenThatNeverCame) {
  RequestRecord record{.method = "Generate", .code = grpc::StatusCode::CANCELLED};
  record.usage = RequestUsage{.queue = std::chrono::seconds(1)};
  for (const std::string& field : Shown(record)) {
    EXPECT_THAT(field, Not(HasSubstr("time_to_first_token")));
  }
}

TEST(RequestLog, ShowsOfATenantADigestOnly) {
  // printf %s acme | sha256sum | cut -c1-12
  EXPECT_THAT(
      Shown({.method = "Generate", .tenant = "acme"}),
      ElementsAre("method:Generate", "code:OK", "tenant:822b33ad87c1", "duration_seconds=0"));
}

TEST(RequestLog, SaysMixedWhereAnswersEndedForDifferentReasons) {
  EXPECT_EQ(JoinFinishReasons("", FinishReason::kStop), "stop");
  EXPECT_EQ(JoinFinishReasons("stop", FinishReason::kStop), "stop");
  EXPECT_EQ(JoinFinishReasons("stop", FinishReason::kLength), "mixed");
  EXPECT_EQ(JoinFinishReasons("mixed", FinishReason::kLength), "mixed");
}

}  // namespace
}  // namespace millrace
