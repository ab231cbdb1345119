// Steps of a model runner on made-up sequences, for measuring: no scheduler, no service. Driven by
// one thread; the runner outlives it.
#ifndef MILLRACE_CLI_BENCH_RUN_H_
#define MILLRACE_CLI_BENCH_RUN_H_

#include <cstdint>
#include <deque>
#include <random>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/step/model_runner.h"

namespace millrace::cli {

enum class BenchTokens : std::uint8_t {
  kRandom,   // each token is drawn anew, so a batch uses many experts
  kSame,     // token 0 everywhere, so that a batch shares its experts
  kSampled,  // a sequence goes on with what it sampled at temperature 1, as served ones do
};

// Sequences at fixed places of the cache: sequence s has the blocks from s * blocks_each on, but
// for the full blocks of the first `shared` positions, which are those of sequence 0.
class BenchRun {
 public:
  BenchRun(ModelRunner* runner, std::int32_t sequences, BenchTokens tokens,
           std::int32_t shared = 0);

  std::int64_t positions_each() const {
    return std::int64_t{blocks_each_} * runner_->info().block_size;
  }

  // Computes positions [begin, end) of sequence s, in chunks of the largest step; no logits but the
  // last ones.
  absl::Status Prefill(std::int32_t s, std::int32_t begin, std::int32_t end);

  // One token for each of the first `sequences` sequences at `position`. Returns before it is done
  // where the runner takes more steps and no token is needed to go on.
  absl::Status Decode(std::int32_t sequences, std::int32_t position);

  // Waits for every step.
  absl::Status Finish();

 private:
  void Add(std::int32_t s, std::int32_t begin, std::int32_t count, bool logits,
           ForwardBatch* batch);
  // The token of sequence s that comes next, in a step of `count` of them.
  std::int32_t NextToken(std::int32_t s, std::int32_t count);
  // Waits for the oldest step.
  absl::Status AwaitOldest();
  absl::Status Put(const ForwardBatch& batch);

  ModelRunner* const runner_;
  const BenchTokens tokens_;
  const std::int32_t shared_blocks_;
  const std::int32_t blocks_each_;
  std::vector<std::int32_t> sampled_;  // by sequence, the last one; with kSampled
  std::deque<StepTicket> in_flight_;   // oldest first
  ForwardResult newest_;               // of the step that was awaited last
  std::mt19937 rng_{7};                // the same tokens every time: experts are chosen by them
};

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_BENCH_RUN_H_
