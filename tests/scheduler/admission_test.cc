#include "scheduler/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

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
  absl::Status Ask() const { return Admit(request_, snapshot_, unseen_, options_, runner_); }
  void ExpectRefused(absl::StatusCode code, const std::string& words) const {
    const absl::Status status = Ask();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  }
  SchedulerOptions options_;
  RunnerInfo runner_;
  LoadSnapshot snapshot_;
  Unseen unseen_;
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
  unseen_.requests = 3;  // one takes the free place, two wait
  EXPECT_TRUE(Ask().ok());
  unseen_.requests = 4;
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

}  // namespace
}  // namespace millrace
