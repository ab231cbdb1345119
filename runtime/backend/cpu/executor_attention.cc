// The executor's attention: units of the step's plan and the merge of their partials, or runs of
// units that need neither.
#include <cmath>
#include <limits>

#include "runtime/backend/cpu/executor.h"

namespace millrace::cpu {
namespace {

// Runs of the longest's work that a worker has at least, so that all end at about the same time.
constexpr std::int64_t kRunsPerWorker = 16;

constexpr auto kAskForNothing = [](std::int64_t) { return [] {}; };

}  // namespace

const std::int32_t* Executor::BlockTable(const AttentionPlan::Unit& unit) const {
  return input_->block_table.data() +
         input_->block_table_start[static_cast<std::size_t>(unit.sequence)];
}

const std::byte* Executor::KeysOf(const AttentionPlan::Unit& unit, std::int32_t kv_head,
                                  const KvLayerView& kv) const {
  const std::int32_t first_block = unit.partition * (kKvPartition / kv.layout.block_size);
  return kv.keys(BlockTable(unit)[first_block], kv_head);
}

AttentionPartialParams Executor::AttentionOf(const AttentionPlan::Unit& unit, std::int32_t kv_head,
                                             const KvLayerView& kv,
                                             const std::byte* next_keys) const {
  AttentionPartialParams params;
  params.kv = kv;
  params.kv_head = kv_head;
  params.group = dims_.num_heads / dims_.num_kv_heads;
  params.block_table = BlockTable(unit);
  params.queries = attention_plan_.queries().data() + unit.begin;
  params.num_queries = unit.count;
  params.positions = input_->positions.data();
  params.q_stride = std::int64_t{dims_.num_heads} * dims_.head_dim;
  params.q = buffers_->q + std::int64_t{kv_head} * params.group * dims_.head_dim;
  params.scale = 1.0F / std::sqrt(static_cast<float>(dims_.head_dim));
  params.next_keys = next_keys;
  return params;
}

void Executor::AttendUnit(const AttentionPlan::Unit& unit, const AttentionPlan::Wave& wave,
                          std::int32_t kv_head, const KvLayerView& kv, const std::byte* next_keys) {
  const std::int64_t entry = dims_.head_dim + 2;
  AttentionPartialParams params = AttentionOf(unit, kv_head, kv, next_keys);
  params.partition = unit.partition;
  // Partials lie as [token of the wave][partition][head][head_dim + 2]: the kernel writes its
  // group's entries one after another.
  params.first_token = wave.tokens_begin;
  params.partial_query_stride = wave.partitions * dims_.num_heads * entry;
  params.partials = buffers_->partials + (std::int64_t{unit.partition} * dims_.num_heads +
                                          std::int64_t{kv_head} * params.group) *
                                             entry;
  attention_.partial(params);
}

void Executor::MergePartials(std::int32_t token, const AttentionPlan::Wave& wave) {
  const std::int64_t entry = dims_.head_dim + 2;
  const std::int64_t first =
      std::int64_t{token - wave.tokens_begin} * wave.partitions * dims_.num_heads;
  const auto used = static_cast<std::int32_t>(
      NumPartitions(std::int64_t{input_->positions[static_cast<std::size_t>(token)]} + 1));
  for (std::int32_t head = 0; head < dims_.num_heads; ++head) {
    attention_.merge(
        buffers_->partials + (first + head) * entry, dims_.num_heads * entry, used, dims_.head_dim,
        buffers_->attended + (std::int64_t{token} * dims_.num_heads + head) * dims_.head_dim);
  }
}

template <typename UnitOf, typename Attend>
void Executor::AttendEach(std::int64_t count, const KvLayerView& kv, const UnitOf& unit_of,
                          const Attend& attend) {
  const std::int64_t heads = dims_.num_kv_heads;
  const auto unit = [&](std::int64_t task) -> const AttentionPlan::Unit& {
    return attention_plan_.units()[static_cast<std::size_t>(unit_of(task / heads))];
  };
  const auto head = [&](std::int64_t task) { return static_cast<std::int32_t>(task % heads); };
  const auto task = [&](std::int64_t i, std::int64_t next) {
    attend(unit(i), head(i), next < 0 ? nullptr : KeysOf(unit(next), head(next), kv));
  };
  // Who knows the next task has taken it: of few tasks, others would have none.
  if (count * heads >= threads_ * kTasksPerWorker) {
    chain_.Run(AheadTaskList{count * heads, task, kAskForNothing});
  } else {
    chain_.Run(TaskList{count * heads, [&](std::int64_t i, int) { task(i, -1); }});
  }
}

// Who computes the last partial of a token merges them: no barrier stands between.
void Executor::AttendUnits(const AttentionPlan::Wave& wave, const KvLayerView& kv) {
  for (std::int32_t t = wave.tokens_begin; t < wave.tokens_end; ++t) {
    const std::int32_t units = attention_plan_.units_of_token()[static_cast<std::size_t>(t)];
    partials_left_[static_cast<std::size_t>(t)].store(units * dims_.num_kv_heads,
                                                      std::memory_order_relaxed);
  }
  AttendEach(
      wave.units_end - wave.units_begin, kv, [&](std::int64_t i) { return wave.units_begin + i; },
      [&](const AttentionPlan::Unit& unit, std::int32_t kv_head, const std::byte* next_keys) {
        AttendUnit(unit, wave, kv_head, kv, next_keys);
        for (std::int32_t q = unit.begin; q < unit.begin + unit.count; ++q) {
          const std::int32_t token = attention_plan_.queries()[static_cast<std::size_t>(q)];
          std::atomic<std::int32_t>& left = partials_left_[static_cast<std::size_t>(token)];
          if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) MergePartials(token, wave);
        }
      });
}

void Executor::AttendRuns(const AttentionPlan::Wave& wave, const KvLayerView& kv) {
  AttendEach(
      wave.runs_end - wave.runs_begin, kv,
      [&](std::int64_t i) {
        return attention_plan_.runs()[static_cast<std::size_t>(wave.runs_begin + i)].units_begin;
      },
      [&](const AttentionPlan::Unit& first, std::int32_t kv_head, const std::byte* next_keys) {
        const AttentionPartialParams params = AttentionOf(first, kv_head, kv, next_keys);
        attention_.whole(
            params, buffers_->attended + std::int64_t{kv_head} * params.group * dims_.head_dim);
      });
}

bool Executor::RunsAreFineEnough(const AttentionPlan::Wave& wave) const {
  return wave.runs_begin < wave.runs_end &&
         wave.longest_run * threads_ * kRunsPerWorker <= wave.work * dims_.num_kv_heads;
}

void Executor::PlanAttention(const StepInput& input) {
  // Runs need no partials, so for them memory cuts no waves. Only a prompt makes runs that are fine
  // enough out of what a limit would cut.
  if (input.positions.size() > input.context_len.size()) {
    attention_plan_.Build(input, limits_.kv.block_size, std::numeric_limits<std::int64_t>::max());
    if (RunsAreFineEnough(attention_plan_.waves().front())) return;
  }
  const std::int64_t partial = std::int64_t{dims_.num_heads} * (dims_.head_dim + 2);
  attention_plan_.Build(input, limits_.kv.block_size, buffers_->partial_floats / partial);
}

void Executor::operator()(const AttentionStage& stage) {
  const KvLayerView kv = KvLayer(stage.layer);
  for (const AttentionPlan::Wave& wave : attention_plan_.waves()) {
    RunsAreFineEnough(wave) ? AttendRuns(wave, kv) : AttendUnits(wave, kv);
  }
}

}  // namespace millrace::cpu
