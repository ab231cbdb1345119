#include "tests/support/fake_runner.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.h"

namespace millrace::testing {
namespace {

// splitmix64's finaliser: any change of the input changes the output.
std::uint64_t Mix(std::uint64_t h, std::uint64_t value) {
  h ^= value + 0x9E3779B97F4A7C15ULL + (h << 6U) + (h >> 2U);
  h = (h ^ (h >> 30U)) * 0xBF58476D1CE4E5B9ULL;
  h = (h ^ (h >> 27U)) * 0x94D049BB133111EBULL;
  return h ^ (h >> 31U);
}

bool Contains(const std::vector<std::uint32_t>& ids, std::uint32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

std::uint32_t NextToken(std::span<const std::uint32_t> context, const RowSampling& sampling,
                        std::uint32_t vocab) {
  std::uint64_t h = context.size();
  for (const std::uint32_t token : context) h = Mix(h, token);
  h = Mix(h, sampling.position);
  if (sampling.params.temperature > 0) h = Mix(h, sampling.params.seed);
  h = Mix(h, std::bit_cast<std::uint32_t>(sampling.params.temperature));
  for (const SeenToken& seen : sampling.seen) h = Mix(h, seen.token * 1000 + seen.output_count);
  for (const auto& [token, bias] : sampling.logit_bias) {
    h = Mix(h, token + std::bit_cast<std::uint32_t>(bias));
  }
  if (!sampling.allowed.empty()) return sampling.allowed[h % sampling.allowed.size()];
  auto token = static_cast<std::uint32_t>(h % vocab);
  while (Contains(sampling.banned, token)) token = (token + 1) % vocab;
  return token;
}

std::vector<std::uint32_t> ExpectedTokens(const Request& request, std::uint32_t vocab) {
  const StoppingParams& stopping = request.stopping;
  std::vector<std::uint32_t> context = request.prompt_tokens;
  std::vector<std::uint32_t> out;
  while (out.size() < stopping.max_new_tokens) {
    RowSampling row;
    row.params = request.sampling.sampler;
    row.position = static_cast<std::uint32_t>(out.size());
    row.logit_bias = request.sampling.logit_bias;
    row.allowed = request.sampling.allowed_token_ids;
    if (row.params.has_penalties()) {
      std::map<std::uint32_t, std::uint32_t> seen;
      for (const std::uint32_t token : request.prompt_tokens) seen[token] += 0;
      for (const std::uint32_t token : out) ++seen[token];
      for (const auto& [token, count] : seen) row.seen.push_back({token, count});
    }
    if (out.size() < stopping.min_new_tokens) {
      row.banned = stopping.end_token_ids;
      row.banned.insert(row.banned.end(), stopping.stop_token_ids.begin(),
                        stopping.stop_token_ids.end());
    }
    const std::uint32_t token = NextToken(context, row, vocab);
    context.push_back(token);
    out.push_back(token);
    if (Contains(stopping.end_token_ids, token) || Contains(stopping.stop_token_ids, token)) break;
  }
  return out;
}

FakeRunner::FakeRunner(RunnerInfo info)
    : info_(info),
      slots_(
          static_cast<std::size_t>(info.num_kv_blocks) * static_cast<std::size_t>(info.block_size),
          -1) {}

void FakeRunner::CheckShape(const ForwardBatch& batch) const {
  MILLRACE_CHECK(batch.num_tokens() > 0 && batch.num_tokens() <= info_.max_step_tokens,
                 "a step has tokens, and no more than the budget");
  MILLRACE_CHECK(batch.num_seqs() <= info_.max_step_seqs, "no more sequences than agreed");
  MILLRACE_CHECK(static_cast<std::int32_t>(in_flight_.size()) < std::max(1, info_.max_in_flight),
                 "no more steps in flight than agreed");
  const auto seqs = static_cast<std::size_t>(batch.num_seqs());
  MILLRACE_CHECK(batch.query_start.size() == seqs + 1 && batch.block_table_start.size() == seqs + 1,
                 "one entry more than sequences");
  MILLRACE_CHECK(batch.query_start.back() == batch.num_tokens(), "every token has an owner");
  MILLRACE_CHECK(batch.positions.size() == batch.token_ids.size(), "every token has a position");
  MILLRACE_CHECK(batch.sampling.size() == batch.logit_rows.size(), "every row is sampled");
}

// Writes the tokens of one sequence where its table says they live.
void FakeRunner::Store(const ForwardBatch& batch, std::int32_t seq, Step* step) {
  const auto s = static_cast<std::size_t>(seq);
  const std::int32_t begin = batch.query_start[s];
  const std::int32_t count = batch.query_start[s + 1] - begin;
  const std::int32_t context = batch.context_len[s];
  MILLRACE_CHECK(count > 0 && context <= info_.max_context,
                 "a sequence computes within its context");
  const std::int32_t table = batch.block_table_start[s];
  const std::int32_t blocks = batch.block_table_start[s + 1] - table;
  MILLRACE_CHECK(blocks == (context + info_.block_size - 1) / info_.block_size,
                 "the table is as long as the context");
  for (std::int32_t i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(begin + i);
    const std::int32_t position = batch.positions[at];
    MILLRACE_CHECK(position == context - count + i, "tokens are the last of their context");
    const std::int32_t block =
        batch.block_table[static_cast<std::size_t>(table + position / info_.block_size)];
    const std::int32_t slot = position % info_.block_size;
    // A block that a sequence newly enters must not be read by a step that is still in flight.
    if (slot == 0) {
      for (const Step& other : in_flight_) {
        MILLRACE_CHECK(!other.blocks.contains(block), "no block is reused under a step in flight");
      }
    }
    slots_[static_cast<std::size_t>(block * info_.block_size + slot)] = batch.token_ids[at];
    step->written.insert(block);
  }
  for (std::int32_t i = 0; i < blocks; ++i) {
    ++step->blocks[batch.block_table[static_cast<std::size_t>(table + i)]];
  }
}

// Tables may have blocks in common: those of a prefix, which nobody writes any more.
void FakeRunner::CheckWrites(const Step& step) const {
  for (const std::int32_t block : step.written) {
    MILLRACE_CHECK(step.blocks.at(block) == 1, "a block that is written stands in one table");
  }
}

std::vector<std::uint32_t> FakeRunner::ReadContext(const ForwardBatch& batch, std::int32_t seq,
                                                   std::int32_t length) const {
  const std::int32_t table = batch.block_table_start[static_cast<std::size_t>(seq)];
  std::vector<std::uint32_t> context;
  for (std::int32_t p = 0; p < length; ++p) {
    const std::int32_t block =
        batch.block_table[static_cast<std::size_t>(table + p / info_.block_size)];
    const std::int64_t token =
        slots_[static_cast<std::size_t>(block * info_.block_size + p % info_.block_size)];
    MILLRACE_CHECK(token >= 0, "only what was written is read");
    context.push_back(static_cast<std::uint32_t>(token));
  }
  return context;
}

absl::StatusOr<StepTicket> FakeRunner::Launch(const ForwardBatch& given) {
  if (launched_ + 1 == fail_launch_) return absl::InternalError("launch failed as asked");
  CheckShape(given);
  ForwardBatch batch = given;
  for (const TokenFromStep& deferred : batch.deferred) {
    const auto& rows = sampled_.at(deferred.ticket);
    batch.token_ids[static_cast<std::size_t>(deferred.token_index)] =
        static_cast<std::int32_t>(rows[static_cast<std::size_t>(deferred.row)].token);
  }
  Step step;
  step.ticket = StepTicket(++launched_);
  step.result.ticket = step.ticket;
  largest_step_ = std::max(largest_step_, batch.num_tokens());
  for (std::int32_t seq = 0; seq < batch.num_seqs(); ++seq) Store(batch, seq, &step);
  CheckWrites(step);
  for (std::size_t row = 0; row < batch.logit_rows.size(); ++row) {
    const std::int32_t token = batch.logit_rows[row];
    std::int32_t seq = 0;
    while (batch.query_start[static_cast<std::size_t>(seq) + 1] <= token) ++seq;
    const std::int32_t length = batch.positions[static_cast<std::size_t>(token)] + 1;
    step.result.sampled.push_back(
        {.token = NextToken(ReadContext(batch, seq, length), batch.sampling[row],
                            static_cast<std::uint32_t>(info_.vocab))});
  }
  sampled_[step.ticket] = step.result.sampled;
  while (sampled_.size() > 4) sampled_.erase(sampled_.begin());
  in_flight_.push_back(std::move(step));
  return StepTicket(launched_);
}

absl::StatusOr<ForwardResult> FakeRunner::Await(StepTicket ticket) {
  {
    MutexLock lock(&mutex_);
    while (held_) {
      blocked_ = true;
      changed_.NotifyAll();
      changed_.Wait(&mutex_);
    }
    blocked_ = false;
  }
  MILLRACE_CHECK(!in_flight_.empty() && in_flight_.front().ticket == ticket,
                 "tickets are awaited in order, each once");
  if (++awaited_ == fail_await_) return absl::InternalError("await failed as asked");
  ForwardResult result = std::move(in_flight_.front().result);
  in_flight_.pop_front();
  return result;
}

void FakeRunner::Hold() {
  MutexLock lock(&mutex_);
  held_ = true;
}

void FakeRunner::Release() {
  {
    MutexLock lock(&mutex_);
    held_ = false;
  }
  changed_.NotifyAll();
}

void FakeRunner::WaitUntilBlocked() {
  MutexLock lock(&mutex_);
  while (!blocked_) changed_.Wait(&mutex_);
}

}  // namespace millrace::testing
