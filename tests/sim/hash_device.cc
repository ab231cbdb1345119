#include "tests/sim/hash_device.h"

#include <algorithm>
#include <utility>

#include "tests/sim/hash_model.h"

namespace millrace::sim {
namespace {

constexpr std::size_t kRecentSteps = 4;

template <typename T>
T At(const std::vector<T>& v, std::int32_t i) {
  return v[static_cast<std::size_t>(i)];
}

}  // namespace

HashDevice::HashDevice(const RunnerInfo& info)
    : info_(info),
      slots_(static_cast<std::size_t>(info.num_kv_blocks) *
             static_cast<std::size_t>(info.block_size)),
      blocks_(static_cast<std::size_t>(info.num_kv_blocks)) {
  // What nobody wrote is different everywhere.
  for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i] = Mix(0xBAD, i);
}

void HashDevice::CheckShape(const ForwardBatch& batch) {
  Require(batch.num_tokens() > 0 && batch.num_tokens() <= info_.max_step_tokens,
          "a step has tokens, and no more than the budget");
  Require(batch.num_seqs() <= info_.max_step_seqs, "no more sequences than agreed");
  Require(static_cast<std::int32_t>(in_flight_.size()) < std::max(1, info_.max_in_flight),
          "no more steps in flight than agreed");
  Require(batch.query_start.back() == batch.num_tokens(), "every token has an owner");
  Require(batch.sampling.size() == batch.logit_rows.size(), "every row is sampled");
}

void HashDevice::ReadTables(const ForwardBatch& batch) {
  for (std::int32_t seq = 0; seq < batch.num_seqs(); ++seq) {
    const std::int32_t blocks =
        At(batch.block_table_start, seq + 1) - At(batch.block_table_start, seq);
    Require(blocks == (At(batch.context_len, seq) + info_.block_size - 1) / info_.block_size,
            "nothing past a table's length is readable");
  }
  for (const std::int32_t id : batch.block_table) {
    Require(id >= 0 && id < info_.num_kv_blocks, "a table names blocks that there are");
    Block& block = blocks_[static_cast<std::size_t>(id)];
    block.tables = block.step == launched_ ? block.tables + 1 : 1;
    block.step = launched_;
  }
}

std::uint64_t& HashDevice::Slot(const ForwardBatch& batch, std::int32_t seq,
                                std::int32_t position) {
  const std::int32_t block =
      At(batch.block_table, At(batch.block_table_start, seq) + position / info_.block_size);
  return slots_[static_cast<std::size_t>(block * info_.block_size + position % info_.block_size)];
}

void HashDevice::Compute(const ForwardBatch& batch, std::int32_t seq) {
  const std::int32_t begin = At(batch.query_start, seq);
  const std::int32_t count = At(batch.query_start, seq + 1) - begin;
  const std::int32_t first = At(batch.context_len, seq) - count;
  Require(count > 0 && At(batch.context_len, seq) <= info_.max_context,
          "a sequence computes within its context");
  std::uint64_t h = first == 0 ? kBeforeAll : Slot(batch, seq, first - 1);
  for (std::int32_t i = 0; i < count; ++i) {
    const std::int32_t position = first + i;
    Require(At(batch.positions, begin + i) == position, "tokens are the last of their context");
    h = Mix(h, static_cast<std::uint64_t>(At(token_ids_, begin + i)));
    Slot(batch, seq, position) = h;
    const std::int32_t id =
        At(batch.block_table, At(batch.block_table_start, seq) + position / info_.block_size);
    Block& block = blocks_[static_cast<std::size_t>(id)];
    Require(block.tables == 1, "a block that is written stands in one table");
    block.written = launched_;
  }
}

std::uint32_t HashDevice::Sample(const ForwardBatch& batch, std::size_t row, std::int32_t seq) {
  const std::int32_t position = At(batch.positions, batch.logit_rows[row]);
  const std::uint64_t h = Slot(batch, seq, position);
  const std::uint64_t earlier = Slot(batch, seq, LooksBackAt(h, position));
  return TokenAfter(h, earlier, batch.sampling[row], static_cast<std::uint32_t>(info_.vocab));
}

absl::StatusOr<StepTicket> HashDevice::Launch(const ForwardBatch& batch) {
  if (!fail_launch_.ok()) return std::exchange(fail_launch_, absl::OkStatus());
  CheckShape(batch);
  token_ids_ = batch.token_ids;
  for (const TokenFromStep& deferred : batch.deferred) {
    const auto step = std::find_if(recent_.begin(), recent_.end(),
                                   [&](const Step& s) { return s.ticket == deferred.ticket; });
    Require(step != recent_.end(), "a token is taken from a step of late");
    if (step == recent_.end()) continue;
    token_ids_[static_cast<std::size_t>(deferred.token_index)] =
        static_cast<std::int32_t>(At(step->result.sampled, deferred.row).token);
  }
  // A block that a step in flight reads must not be entered by another sequence: it would have
  // been taken back, and so stand in no table of a step before this one that is not done.
  for (std::int32_t seq = 0; seq < batch.num_seqs(); ++seq) {
    const std::int32_t count = At(batch.query_start, seq + 1) - At(batch.query_start, seq);
    for (std::int32_t p = At(batch.context_len, seq) - count; p < At(batch.context_len, seq); ++p) {
      if (p % info_.block_size != 0) continue;
      const std::int32_t id =
          At(batch.block_table, At(batch.block_table_start, seq) + p / info_.block_size);
      Require(blocks_[static_cast<std::size_t>(id)].step <= awaited_,
              "no block is reused under a step in flight");
    }
  }
  ++launched_;
  ReadTables(batch);
  Step step;
  step.ticket = step.result.ticket = StepTicket(launched_);
  for (std::int32_t seq = 0; seq < batch.num_seqs(); ++seq) Compute(batch, seq);
  std::int32_t seq = 0;
  for (std::size_t row = 0; row < batch.logit_rows.size(); ++row) {
    while (At(batch.query_start, seq + 1) <= batch.logit_rows[row]) ++seq;
    step.result.sampled.push_back({.token = Sample(batch, row, seq)});
  }
  if (spoil_ && !step.result.sampled.empty()) {
    SampledToken& token = step.result.sampled[spoiled_row_ % step.result.sampled.size()];
    token.finite = false;
    token.token = (token.token + 1) % static_cast<std::uint32_t>(info_.vocab);  // means nothing
    spoil_ = false;
  }
  recent_.push_back(step);
  if (recent_.size() > kRecentSteps) recent_.pop_front();
  in_flight_.push_back(std::move(step));
  return StepTicket(launched_);
}

absl::StatusOr<ForwardResult> HashDevice::Await(StepTicket ticket) {
  Require(!in_flight_.empty() && in_flight_.front().ticket == ticket,
          "tickets are awaited in order, each once");
  ++awaited_;
  if (std::exchange(fail_await_, false)) return absl::InternalError("the device is lost");
  ForwardResult result = std::move(in_flight_.front().result);
  in_flight_.pop_front();
  return result;
}

}  // namespace millrace::sim
