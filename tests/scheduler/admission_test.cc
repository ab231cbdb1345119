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
  absl::Status Ask() const {
    return Admit(request_, snapshot_, unseen_, tenant_, options_, runner_);
  }
  void ExpectRefused(absl::StatusCode code, const std::string& words) const {
    const absl::Status status = Ask();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  }
  SchedulerOptions options_;
  RunnerInfo runner_;
  LoadSnapshot snapshot_;
  Unseen unseen_;
  TenantQueue tenant_{.tenants = 1};
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
  unseen_.sequences = 3;  // one takes the free place, two wait
  EXPECT_TRUE(Ask().ok());
  unseen_.sequences = 4;
  ExpectRefused(absl::StatusCode::kResourceExhausted, "--max-queue is 3");
}

TEST_F(Admission, SeesNoRoomInPlacesThatMemoryKeepsEmpty) {
  snapshot_.running = 1;
  snapshot_.waiting = 3;  // who waits although there is a place waits for memory
  ExpectRefused(absl::StatusCode::kResourceExhausted, "--max-queue is 3");
}

TEST_F(Admission, CountsTheTokensThatWait) {
  snapshot_.running = 2;
  snapshot_.waiting = 1;
  snapshot_.waiting_prompt_tokens = 80;
  unseen_.prompt_tokens = 10;
  EXPECT_TRUE(Ask().ok());
  unseen_.prompt_tokens = 11;
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
  ExpectRefused(absl::StatusCode::kResourceExhausted, "--max-queue is 3");
  tenant_ = {.tenants = 2, .own = 0};
  EXPECT_TRUE(Ask().ok());
  tenant_.own = 1;  // of three places for two
  ExpectRefused(absl::StatusCode::kResourceExhausted, "--max-queue is 3");
}

TEST_F(Admission, SaysWhenToComeAgain) {
  snapshot_.waiting = 3;
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
  snapshot_.prompt_backlog = 39;                // 78 ms
  EXPECT_TRUE(Ask().ok());
  snapshot_.prompt_backlog = 41;
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

}  // namespace
}  // namespace millrace
