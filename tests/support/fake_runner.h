// A model runner without a model, for tests of the scheduler and the engine: the next token is a
// hash of all that may decide it. It keeps a paged cache of token ids and reads every context back
// through the block table, so a wrong table, a block freed too early or a stale position changes
// what comes out, and what was never written aborts.
//
// Driven by one thread; Hold, Release and the counters may be used from others.
#ifndef MILLRACE_TESTS_SUPPORT_FAKE_RUNNER_H_
#define MILLRACE_TESTS_SUPPORT_FAKE_RUNNER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "runtime/step/model_runner.h"
#include "scheduler/request.h"

namespace millrace::testing {

class FakeRunner final : public ModelRunner {
 public:
  // `info.max_in_flight` is what the scheduler plans with: 0 or 1 as on a CPU, 2 as on a GPU.
  explicit FakeRunner(RunnerInfo info);

  const RunnerInfo& info() const override { return info_; }
  absl::StatusOr<StepTicket> Launch(const ForwardBatch& batch) override;
  absl::StatusOr<ForwardResult> Await(StepTicket ticket) override;

  // The device is lost at this step, counted from 1: in Launch or in Await.
  void FailLaunchAt(std::uint64_t step) { fail_launch_ = step; }
  void FailAwaitAt(std::uint64_t step) { fail_await_ = step; }

  // Await blocks while held. WaitUntilBlocked returns once it does.
  void Hold();
  void Release();
  void WaitUntilBlocked();

  std::uint64_t steps() const { return launched_; }
  std::int32_t largest_step() const { return largest_step_; }  // tokens

 private:
  struct Step {
    StepTicket ticket;
    ForwardResult result;
    std::map<std::int32_t, int> blocks;  // in how many tables
    std::set<std::int32_t> written;
  };

  void CheckShape(const ForwardBatch& batch) const;
  void Store(const ForwardBatch& batch, std::int32_t seq, Step* step);
  void CheckWrites(const Step& step) const;
  std::vector<std::uint32_t> ReadContext(const ForwardBatch& batch, std::int32_t seq,
                                         std::int32_t length) const;

  const RunnerInfo info_;
  std::vector<std::int64_t> slots_;  // [num_kv_blocks * block_size] token ids; -1: never written
  std::deque<Step> in_flight_;
  std::map<StepTicket, std::vector<SampledToken>> sampled_;  // of the newest steps
  std::uint64_t launched_ = 0;
  std::uint64_t awaited_ = 0;
  std::uint64_t fail_launch_ = 0;
  std::uint64_t fail_await_ = 0;
  std::int32_t largest_step_ = 0;

  Mutex mutex_;
  CondVar changed_;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  bool blocked_ ABSL_GUARDED_BY(mutex_) = false;
};

// The token after `context` for a row sampled so.
std::uint32_t NextToken(std::span<const std::uint32_t> context, const RowSampling& sampling,
                        std::uint32_t vocab);

// What a request must generate, whatever it is scheduled with: tokens until it stops.
std::vector<std::uint32_t> ExpectedTokens(const Request& request, std::uint32_t vocab);

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_SUPPORT_FAKE_RUNNER_H_
