// From measured rates to what a server can do: predicted tokens a second of a closed loop, and
// suggested flags. Pure functions of their figures. Thread-safe.
#ifndef MILLRACE_CLI_CAPACITY_PLAN_H_
#define MILLRACE_CLI_CAPACITY_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

namespace millrace::cli {

struct BatchRate {
  std::int32_t batch = 0;
  double step_seconds = 0;  // of one token for each sequence

  double tokens_per_second() const { return batch / step_seconds; }
};

struct CapacityFigures {
  std::int32_t block_size = 0;
  std::int32_t kv_blocks = 0;
  std::int32_t context = 0;       // of one sequence at most
  std::int32_t max_num_seqs = 0;  // asked for
  std::int32_t prompt_tokens = 0;
  std::int32_t output_tokens = 0;
  double prefill_tokens_per_second = 0;
  std::vector<BatchRate> decode;  // by growing batch, not empty
  // What serving adds, server and client: gRPC. Below zero where prompts and answers in one step
  // save more than that.
  double service_seconds_per_token = 0;

  std::int64_t positions() const { return std::int64_t{kv_blocks} * block_size; }
};

// The sequences of so many positions that the KV cache holds at once.
std::int32_t SequencesThatFit(const CapacityFigures& figures, std::int32_t context);

// The least of a growing batch that counts as growth.
inline constexpr double kLeastGrowth = 1.05;

// Generated tokens a second while `concurrency` requests of the mix are always under way: each is
// its prompt's prefill, a share of one step for each further token, and what the service adds.
// Between two measured batches a step's time is drawn as a line. Never more than decoding alone
// gives. REQUIRES: concurrency is at least
// 1, and at most the largest batch.
double PredictTokensPerSecond(const CapacityFigures& figures, double concurrency);

struct Suggestion {
  std::string name;  // the flag, or the key of the autoscaler's metadata
  std::int64_t value = 0;
  std::string reason;  // a word
  std::string why;     // and a few more
};

// --max-num-seqs first, then targetQueue, targetKvPercent and targetRunningPercent.
std::vector<Suggestion> Suggest(const CapacityFigures& figures);

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_CAPACITY_PLAN_H_
