#include "scheduler/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "base/error_details.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

class Admission : public ::testing::Test {
 protected:
  Admission() {
    options_.max_num_seqs = 2;
    options_.max_queue = 3;
    options_.max_queue_tokens = 100;
    runner_.max_context = 64;
    runner_.block_size = 16;
    runner_.num_kv_blocks = 3;
    request_.prompt_tokens.assign(10, 1);
    request_.stopping.max_new_tokens = 10;
  }
  absl::Status Ask() const { return Admit(request_, snapshot_, queue_, options_, runner_); }
  void ExpectRefused(absl::StatusCode code, const std::string& words) const {
    const absl::Status status = Ask();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  }
  SchedulerOptions options_;
  RunnerInfo runner_;
  void Queue(const std::string& tenant, std::int32_t sequences, std::int64_t prompt_tokens = 0) {
    queue_.Add(tenant, 0, {sequences, prompt_tokens});
  }
  LoadSnapshot snapshot_;
  QueueView queue_;
  Request request_;
};

TEST_F(Admission, TakesWhatFits) { EXPECT_TRUE(Ask().ok()); }

TEST_F(Admission, RefusesWhatCanNeverRun) {
  request_.prompt_tokens.clear();
  ExpectRefused(absl::StatusCode::kInvalidArgument, "prompt");
  request_.prompt_tokens.assign(60, 1);
  ExpectRefused(absl::StatusCode::kInvalidArgument, "context of 64");
  request_.prompt_tokens.assign(39, 1);  // 49 positions: more than 3 blocks of 16
  ExpectRefused(absl::StatusCode::kInvalidArgument, "KV cache holds 48");
  request_.prompt_tokens.assign(38, 1);
  EXPECT_TRUE(Ask().ok());
}

TEST_F(Admission, CountsFreePlacesAndThenTheQueue) {
  snapshot_.running = 1;
  Queue("", 3);  // one takes the free place, two wait
  EXPECT_TRUE(Ask().ok());
  Queue("", 1);
  ExpectRefused(absl::StatusCode::kResourceExhausted, "--max-queue is 3");
}

TEST_F(Admission, SeesNoRoomInPlacesThatMemoryKeepsEmpty) {
  snapshot_.running = 1;
  snapshot_.waiting = 3;  // who waits although there is a place waits for memory
  Queue("", 3);
  ExpectRefused(absl::StatusCode::kResourceExhausted, "--max-queue is 3");
}

TEST_F(Admission, CountsEveryAnswer) {
  snapshot_.running = 2;
  Queue("", 1);
  request_.num_sequences = 2;
  EXPECT_TRUE(Ask().ok());
  request_.num_sequences = 3;
  ExpectRefused(absl::StatusCode::kResourceExhausted, "--max-queue is 3");
  queue_ = {};
  request_.num_sequences = 100;
  EXPECT_TRUE(Ask().ok()) << "what is larger than the queue has it for itself";
}

TEST_F(Admission, CountsPromptTokensThatWait) {
  snapshot_.running = 2;
  Queue("", 2, 90);
  EXPECT_TRUE(Ask().ok());
  Queue("", 0, 1);
  ExpectRefused(absl::StatusCode::kResourceExhausted, "--max-queue-tokens is 100");
}

TEST_F(Admission, TakesOneLargePromptIntoAnEmptyQueue) {
  options_.max_queue_tokens = 5;
  EXPECT_TRUE(Ask().ok());
}

TEST_F(Admission, RefusesEverythingWhileDrainingOrLost) {
  snapshot_.accepting = false;
  ExpectRefused(absl::StatusCode::kUnavailable, "draining");
  snapshot_.failed = true;
  ExpectRefused(absl::StatusCode::kUnavailable, "device");
}

TEST_F(Admission, GivesATenantItsShareOfAFullQueue) {
  snapshot_.running = 2;
  snapshot_.waiting = 3;
  Queue("greedy", 3);
  request_.tenant = "greedy";
  ExpectRefused(absl::StatusCode::kResourceExhausted, "--max-queue is 3");
  request_.tenant = "modest";
  EXPECT_TRUE(Ask().ok());
  request_.num_sequences = 2;  // of three places for two
  ExpectRefused(absl::StatusCode::kResourceExhausted, "--max-queue is 3");
}

TEST_F(Admission, SaysWhenToComeAgain) {
  snapshot_.waiting = 3;
  Queue("", 3);
  snapshot_.seconds_per_turn = 2;
  EXPECT_EQ(RetryAfter(Ask()), std::chrono::seconds(2));
  EXPECT_EQ(Reason(Ask()), kQueueFull);
}

// Refused if and only if the first token, and what must follow it, is predicted past the deadline.
TEST_F(Admission, RefusesADeadlineThatCannotBeMetAtTheMeasuredPace) {
  request_.arrival = TimePoint(std::chrono::seconds(10));
  request_.deadline = request_.arrival + std::chrono::milliseconds(100);
  EXPECT_TRUE(Ask().ok()) << "nothing is measured yet";
  snapshot_.prefill_seconds_per_token = 0.002;  // 20 ms for its own 10 tokens
  snapshot_.running = 1;
  snapshot_.running_prompt_backlog = 39;  // 78 ms
  EXPECT_TRUE(Ask().ok());
  snapshot_.running_prompt_backlog = 41;
  ExpectRefused(absl::StatusCode::kResourceExhausted, "the deadline is in 100 ms");
  EXPECT_EQ(Reason(Ask()), kDeadlineUnreachable);
  EXPECT_EQ(RetryAfter(Ask()), std::chrono::milliseconds(2));
  request_.deadline = kNoDeadline;
  EXPECT_TRUE(Ask().ok());
}

TEST_F(Admission, CountsTheWaitForAPlaceAndTheTokensThatMustFollow) {
  request_.arrival = TimePoint(std::chrono::seconds(10));
  request_.deadline = request_.arrival + std::chrono::milliseconds(100);
  snapshot_.running = 2;
  snapshot_.waiting = 2;
  Queue("", 2);
  snapshot_.seconds_per_turn = 0.03;  // the third turn after now is its own
  EXPECT_TRUE(Ask().ok());
  snapshot_.decode_seconds_per_token = 0.005;
  request_.stopping.max_new_tokens = 10;  // as many as it likes: they never count
  EXPECT_TRUE(Ask().ok());
  request_.stopping.min_new_tokens = 2;
  EXPECT_TRUE(Ask().ok());
  request_.stopping.min_new_tokens = 3;
  EXPECT_EQ(Reason(Ask()), kDeadlineUnreachable);
}

// Who goes before it is what counts, not all that waits.
TEST_F(Admission, PredictsByTheOrder) {
  options_.max_queue = 1000;
  options_.max_queue_tokens = 1 << 20;
  request_.arrival = TimePoint(std::chrono::seconds(10));
  request_.deadline = request_.arrival + std::chrono::seconds(3);
  snapshot_.running = 2;
  snapshot_.waiting = 200;
  snapshot_.seconds_per_turn = 1;
  Queue("", 200);
  EXPECT_EQ(Reason(Ask()), kDeadlineUnreachable);
  request_.tenant = "another";
  EXPECT_TRUE(Ask().ok()) << "one of the other's may go before, then it is its turn";
  request_.tenant = "";
  request_.priority = 1;
  EXPECT_TRUE(Ask().ok());
  queue_.Add("x", 2, {.sequences = 2});
  EXPECT_TRUE(Ask().ok());
  queue_.Add("x", 2, {.sequences = 1});
  EXPECT_EQ(Reason(Ask()), kDeadlineUnreachable);
}

// An idle server that thinks prompts cost far more than they do would refuse for ever what would
// teach it better.
TEST_F(Admission, JudgesByTheLowestPricesAfterALongSilence) {
  snapshot_.prefill_seconds_per_token = 1;  // a stolen minute
  snapshot_.decode_seconds_per_token = 1;
  snapshot_.last_step = TimePoint(std::chrono::seconds(100));
  request_.stopping.min_new_tokens = 2;
  const auto ask_after = [this](std::chrono::seconds silence) {
    request_.arrival = snapshot_.last_step + silence;
    request_.deadline = request_.arrival + std::chrono::milliseconds(100);
    return Ask();
  };
  EXPECT_EQ(Reason(ask_after(std::chrono::seconds(4))), kDeadlineUnreachable);
  EXPECT_TRUE(ask_after(std::chrono::seconds(5)).ok()) << "nothing was ever measured";
  snapshot_.lowest_prefill_seconds = 0.008;
  snapshot_.lowest_decode_seconds = 0.01;
  EXPECT_TRUE(ask_after(std::chrono::seconds(5)).ok());
  snapshot_.lowest_decode_seconds = 0.011;
  EXPECT_EQ(Reason(ask_after(std::chrono::seconds(5))), kDeadlineUnreachable);
  EXPECT_TRUE(ask_after(std::chrono::seconds(6)).ok()) << "and prices fade";
  snapshot_.lowest_decode_seconds = 0.01;
  Queue("", 1);  // another that was let in
  EXPECT_EQ(Reason(ask_after(std::chrono::seconds(5))), kDeadlineUnreachable);
}

}  // namespace
}  // namespace millrace
