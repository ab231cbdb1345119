// What leaves the engine arrives at the right sink, as whole UTF-8, with one end each.
#include "service/token_pump.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace millrace {
namespace {

using ::testing::HasSubstr;

// Keeps what it is given. Read it after the pump has joined.
class RecordingSink final : public TokenSink {
 public:
  void Deliver(StreamDelta delta) override { deltas.push_back(std::move(delta)); }
  std::string text() const {
    std::string all;
    for (const StreamDelta& delta : deltas) all += delta.text;
    return all;
  }
  std::vector<StreamDelta> deltas;
};

TokenEvent Tokens(RequestId id, std::vector<std::uint32_t> tokens, std::string bytes) {
  TokensEvent event;
  for (const std::uint32_t token : tokens) event.tokens.push_back({.token = token});
  event.released_bytes = std::move(bytes);
  return {.id = id, .at = TimePoint(Duration(1000)), .what = std::move(event)};
}

class TokenPumpTest : public ::testing::Test {
 protected:
  RequestId Add(const std::string& name, const std::shared_ptr<RecordingSink>& sink) {
    return *live_.Add({name, TimePoint(Duration(10)), sink});
  }
  void Send(TokenEvent event) {
    EngineOutput output;
    output.events.push_back(std::move(event));
    ASSERT_TRUE(channel_.Send(std::move(output)));
  }
  // Lets the pump handle all that was sent.
  void Run() {
    channel_.Close();
    TokenPump pump(&channel_, &live_, &metrics_);
    bool ended = false;
    pump.Start([&ended] { ended = true; });
    pump.Join();
    EXPECT_TRUE(ended);
  }

  TokenChannel channel_;
  LiveRequests live_;
  Metrics metrics_{"test"};
};

TEST_F(TokenPumpTest, EmitsOnlyWholeCharacters) {
  const auto sink = std::make_shared<RecordingSink>();
  const RequestId id = Add("a", sink);
  const std::string smile = "\xF0\x9F\x98\x80";
  for (std::size_t i = 0; i < smile.size(); ++i) Send(Tokens(id, {1}, smile.substr(i, 1)));
  Send({.id = id, .what = FinishedEvent{.reason = FinishReason::kLength}});
  Run();
  EXPECT_EQ(sink->text(), smile);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(sink->deltas[static_cast<std::size_t>(i)].text, "");
}

TEST_F(TokenPumpTest, EndsAnUnfinishedCharacterWithTheReplacement) {
  const auto sink = std::make_shared<RecordingSink>();
  const RequestId id = Add("a", sink);
  Send(Tokens(id, {1}, "ok\xE2\x82"));
  Send({.id = id, .what = FinishedEvent{}});
  Run();
  EXPECT_EQ(sink->text(), "ok\xEF\xBF\xBD");
  ASSERT_TRUE(sink->deltas.back().finish.has_value());
  EXPECT_TRUE(sink->deltas.back().end->ok());
}

TEST_F(TokenPumpTest, KeepsTheStreamsOfRequestsApart) {
  const auto first = std::make_shared<RecordingSink>();
  const auto second = std::make_shared<RecordingSink>();
  const RequestId a = Add("a", first);
  const RequestId b = Add("b", second);
  Send(Tokens(a, {1}, "\xC3"));
  Send(Tokens(b, {2}, "b"));
  Send(Tokens(a, {3}, "\xA9"));
  Send({.id = a, .what = FinishedEvent{}});
  Send({.id = b, .what = CancelledEvent{}});
  Run();
  EXPECT_EQ(first->text(), "\xC3\xA9");
  EXPECT_EQ(second->text(), "b");
  EXPECT_EQ(second->deltas.back().end->code(), absl::StatusCode::kCancelled);
}

TEST_F(TokenPumpTest, FreesTheNameBeforeTheEndIsKnown) {
  struct Probe final : TokenSink {
    explicit Probe(LiveRequests* l) : live(*l) {}
    void Deliver(StreamDelta delta) override {
      if (delta.end) name_was_free = live.Add({"a", TimePoint(), nullptr}).has_value();
    }
    LiveRequests& live;
    bool name_was_free = false;
  };
  const auto probe = std::make_shared<Probe>(&live_);
  const RequestId id = *live_.Add({"a", TimePoint(), probe});
  EXPECT_FALSE(live_.Add({"a", TimePoint(), nullptr}).has_value());
  Send({.id = id, .what = FinishedEvent{}});
  Run();
  EXPECT_TRUE(probe->name_was_free);
}

TEST_F(TokenPumpTest, GivesEveryKindOfEndItsStatus) {
  const std::pair<TokenEvent, absl::StatusCode> cases[] = {
      {{.what = CancelledEvent{}}, absl::StatusCode::kCancelled},
      {{.what = ShutDownEvent{}}, absl::StatusCode::kUnavailable},
      {{.what = FailedEvent{absl::DeadlineExceededError("late"), {}}},
       absl::StatusCode::kDeadlineExceeded},
      {{.what = FailedEvent{absl::AbortedError("slow"), {}}}, absl::StatusCode::kAborted},
      {{.what = FailedEvent{absl::InternalError("device"), {}}}, absl::StatusCode::kInternal},
  };
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const auto& [event, code] : cases) {
    sinks.push_back(std::make_shared<RecordingSink>());
    TokenEvent sent = event;
    sent.id = Add(std::to_string(sinks.size()), sinks.back());
    Send(Tokens(sent.id, {1, 2}, "x"));
    Send(std::move(sent));
  }
  Run();
  for (std::size_t i = 0; i < sinks.size(); ++i) {
    EXPECT_EQ(sinks[i]->deltas.back().end->code(), cases[i].second);
  }
  const std::string scrape = metrics_.Scrape();
  for (const char* cause : {"cancel", "shutdown", "deadline", "slow_reader", "failure"}) {
    EXPECT_THAT(scrape,
                HasSubstr("millrace_wasted_tokens_total{cause=\"" + std::string(cause) + "\"} 2"));
  }
}

TEST_F(TokenPumpTest, TimesTheFirstTokenAndThoseAfterIt) {
  const auto sink = std::make_shared<RecordingSink>();
  const RequestId id = Add("a", sink);
  Send(Tokens(id, {1}, "a"));
  Send(Tokens(id, {2, 3}, "bc"));
  Send({.id = id, .what = FinishedEvent{}});
  Run();
  const std::string scrape = metrics_.Scrape();
  EXPECT_THAT(scrape, HasSubstr("millrace_time_to_first_token_seconds_count 1"));
  EXPECT_THAT(scrape, HasSubstr("millrace_inter_token_latency_seconds_count 2"));
  EXPECT_THAT(scrape, HasSubstr("millrace_generated_tokens_total 3"));
}

}  // namespace
}  // namespace millrace
