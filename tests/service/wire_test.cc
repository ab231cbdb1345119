// Values become messages and statuses, and addresses are read as they are written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "service/http_server.h"
#include "service/response_builder.h"
#include "service/status_mapping.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(PromptMessages, NeverPassOneMebibyteAndJoinToTheWhole) {
  // Ids of five bytes: the largest there are.
  const std::vector<std::uint32_t> ids(300000, UINT32_MAX);
  const auto messages = PromptMessages("r", ids, true);
  ASSERT_EQ(messages.size(), 3U);
  std::size_t total = 0;
  for (const v1::GenerateResponse& message : messages) {
    EXPECT_LE(message.ByteSizeLong(), std::size_t{1} << 20);
    EXPECT_EQ(message.prompt().num_tokens(), ids.size());
    EXPECT_EQ(message.request_id(), "r");
    total += static_cast<std::size_t>(message.prompt().token_ids_size());
  }
  EXPECT_EQ(total, ids.size());
}

TEST(PromptMessages, AreOneWithoutIdsUnlessAskedFor) {
  const auto messages = PromptMessages("r", {4, 5}, false);
  ASSERT_EQ(messages.size(), 1U);
  EXPECT_EQ(messages[0].prompt().num_tokens(), 2U);
  EXPECT_EQ(messages[0].prompt().token_ids_size(), 0);
}

TEST(AppendDelta, JoinsDeltasAndEndsWithWhatWasMatched) {
  v1::GenerateResponse message;
  StreamDelta delta;
  delta.text = "a";
  delta.tokens = {{.token = 7, .logprob = -0.5F, .rank = 2, .top = {{9, -0.25F}}}};
  AppendDelta(delta, &message);
  delta.text = "b";
  delta.tokens = {{.token = 8}};
  delta.finish = FinishedEvent{.match = MatchedStopString{"b"}, .usage = {.prompt_tokens = 3}};
  AppendDelta(delta, &message);
  EXPECT_EQ(message.text(), "ab");
  EXPECT_THAT(message.token_ids(), ElementsAre(7, 8));
  ASSERT_EQ(message.logprobs_size(), 1);  // only where they were asked for
  EXPECT_EQ(message.logprobs(0).rank(), 2U);
  EXPECT_EQ(message.logprobs(0).top(0).token_id(), 9U);
  EXPECT_EQ(message.finish().reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(message.finish().stop_string(), "b");
  EXPECT_EQ(message.usage().prompt_tokens(), 3U);
}

TEST(ToGrpcStatus, KeepsTheCodeAndOneLineOfText) {
  const grpc::Status status = ToGrpcStatus(absl::NotFoundError("no\nsuch"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "no such");
  EXPECT_EQ(CodeName(status.error_code()), "NOT_FOUND");
  EXPECT_EQ(CodeName(grpc::StatusCode::UNAUTHENTICATED), "UNAUTHENTICATED");
}

TEST(ToGrpcStatus, CutsLongTextBetweenCharacters) {
  // U+20AC takes three bytes, and 2048 is no multiple of three.
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "\xE2\x82\xAC";
  const std::string cut = ToGrpcStatus(absl::InternalError(text)).error_message();
  EXPECT_EQ(cut.size() % 3, 0U);
  EXPECT_LE(cut.size(), 2048U + 3);
  EXPECT_EQ(cut.substr(cut.size() - 6), "\xE2\x82\xAC...");
}

TEST(ParseHostPort, ReadsWhatItWrites) {
  for (const char* text : {"127.0.0.1:0", "0.0.0.0:50051", "[::1]:9400", "localhost:65535"}) {
    const auto address = ParseHostPort(text);
    ASSERT_TRUE(address.ok()) << text;
    EXPECT_EQ(FormatHostPort(*address), text);
  }
}

TEST(ParseHostPort, NamesWhatIsNoAddress) {
  for (const char* text : {"", ":", ":80", "host", "host:", "host:65536", "host:-1", "host:8x",
                           "::1:80", "host:99999999999"}) {
    const auto address = ParseHostPort(text);
    ASSERT_FALSE(address.ok()) << text;
    EXPECT_THAT(std::string(address.status().message()), HasSubstr("HOST:PORT"));
  }
}

TEST(HttpServer, RefusesAPortThatIsTaken) {
  const HttpServer::Handlers handlers = {.metrics = [] { return std::string(); },
                                         .ready = [] { return true; }};
  const auto first = HttpServer::Listen("127.0.0.1:0", handlers);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = HttpServer::Listen((*first)->address(), handlers);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr((*first)->address()));
}

}  // namespace
}  // namespace millrace
