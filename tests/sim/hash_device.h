// A device that computes the hash model over a paged cache, with up to two steps in flight, and
// fails when it is told to. It checks every batch that it gets; what is wrong is kept as the first
// violation. Driven by one thread.
#ifndef MILLRACE_TESTS_SIM_HASH_DEVICE_H_
#define MILLRACE_TESTS_SIM_HASH_DEVICE_H_

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/step/model_runner.h"

namespace millrace::sim {

class HashDevice final : public ModelRunner {
 public:
  explicit HashDevice(const RunnerInfo& info);

  const RunnerInfo& info() const override { return info_; }
  absl::StatusOr<StepTicket> Launch(const ForwardBatch& batch) override;
  absl::StatusOr<ForwardResult> Await(StepTicket ticket) override;

  // With this status.
  void FailNextLaunch(absl::Status why) { fail_launch_ = std::move(why); }
  void FailNextAwait() { fail_await_ = true; }
  // One row of the next step has no finite logits.
  void SpoilNextRow(std::uint32_t which) {
    spoil_ = true;
    spoiled_row_ = which;
  }

  // Empty while all is well.
  const std::string& violation() const { return violation_; }

 private:
  struct Step {
    StepTicket ticket;
    ForwardResult result;
  };
  // What is known of a block.
  struct Block {
    std::uint64_t step = 0;     // the newest with the block in a table
    std::int32_t tables = 0;    // of that step
    std::uint64_t written = 0;  // the newest step that wrote it
  };

  void Require(bool condition, const char* what) {
    if (!condition && violation_.empty()) violation_ = what;
  }
  void CheckShape(const ForwardBatch& batch);
  void ReadTables(const ForwardBatch& batch);
  void Compute(const ForwardBatch& batch, std::int32_t seq);
  std::uint32_t Sample(const ForwardBatch& batch, std::size_t row, std::int32_t seq);
  std::int32_t TokenId(const ForwardBatch& batch, std::int32_t index) const;
  std::uint64_t& Slot(const ForwardBatch& batch, std::int32_t seq, std::int32_t position);

  const RunnerInfo info_;
  std::vector<std::uint64_t> slots_;  // [num_kv_blocks * block_size]
  std::vector<Block> blocks_;
  std::vector<std::int32_t> token_ids_;  // of the batch, with deferred ones filled in
  std::deque<Step> in_flight_;
  std::deque<Step> recent_;  // whose tokens may be referred to
  std::uint64_t launched_ = 0;
  std::uint64_t awaited_ = 0;
  absl::Status fail_launch_;  // OK: it will not
  bool fail_await_ = false;
  bool spoil_ = false;
  std::uint32_t spoiled_row_ = 0;
  std::string violation_;
};

}  // namespace millrace::sim

#endif  // MILLRACE_TESTS_SIM_HASH_DEVICE_H_
