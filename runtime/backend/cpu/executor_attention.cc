// The executor's attention: units of the step's plan, and the merge of their partials.
#include <cmath>

#include "runtime/backend/cpu/executor.h"

namespace millrace::cpu {

const std::int32_t* Executor::BlockTable(const AttentionPlan::Unit& unit) const {
  return input_->block_table.data() +
         input_->block_table_start[static_cast<std::size_t>(unit.sequence)];
}

void Executor::AttendUnit(const AttentionPlan::Unit& unit, const AttentionPlan::Wave& wave,
                          std::int32_t kv_head, const KvLayerView& kv, const std::byte* next_keys) {
  const std::int32_t group = dims_.num_heads / dims_.num_kv_heads;
  const std::int64_t entry = dims_.head_dim + 2;
  AttentionPartialParams params;
  params.kv = kv;
  params.kv_head = kv_head;
  params.group = group;
  params.block_table = BlockTable(unit);
  params.partition = unit.partition;
  params.queries = attention_plan_.queries().data() + unit.begin;
  params.num_queries = unit.count;
  params.positions = input_->positions.data();
  params.q_stride = std::int64_t{dims_.num_heads} * dims_.head_dim;
  params.q = buffers_->q + std::int64_t{kv_head} * group * dims_.head_dim;
  params.scale = 1.0F / std::sqrt(static_cast<float>(dims_.head_dim));
  // Partials lie as [token of the wave][partition][head][head_dim + 2]: the kernel writes its
  // group's entries one after another.
  params.first_token = wave.tokens_begin;
  params.partial_query_stride = wave.partitions * dims_.num_heads * entry;
  params.partials =
      buffers_->partials +
      (std::int64_t{unit.partition} * dims_.num_heads + std::int64_t{kv_head} * group) * entry;
  params.next_keys = next_keys;
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

// Who computes the last partial of a token merges them: no barrier stands between.
void Executor::AttendWave(const AttentionPlan::Wave& wave, const KvLayerView& kv) {
  // Task i is a unit for one kv head.
  const auto unit_of = [&](std::int64_t i) -> const AttentionPlan::Unit& {
    const auto at = wave.units_begin + static_cast<std::int32_t>(i / dims_.num_kv_heads);
    return attention_plan_.units()[static_cast<std::size_t>(at)];
  };
  const auto head_of = [&](std::int64_t i) {
    return static_cast<std::int32_t>(i % dims_.num_kv_heads);
  };
  const auto keys_of = [&](std::int64_t i) -> const std::byte* {
    if (i < 0) return nullptr;
    const std::int32_t block = unit_of(i).partition * (kKvPartition / kv.layout.block_size);
    return kv.keys(BlockTable(unit_of(i))[block], head_of(i));
  };
  const auto attend = [&](std::int64_t i, std::int64_t next) {
    const AttentionPlan::Unit& unit = unit_of(i);
    AttendUnit(unit, wave, head_of(i), kv, keys_of(next));
    for (std::int32_t q = unit.begin; q < unit.begin + unit.count; ++q) {
      const std::int32_t token = attention_plan_.queries()[static_cast<std::size_t>(q)];
      std::atomic<std::int32_t>& left = partials_left_[static_cast<std::size_t>(token)];
      if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) MergePartials(token, wave);
    }
  };
  const std::int64_t tasks = std::int64_t{wave.units_end - wave.units_begin} * dims_.num_kv_heads;
  // Who knows the next task has taken it: of few tasks, others would have none.
  if (tasks >= threads_ * kTasksPerWorker) {
    chain_.Run(AheadTaskList{tasks, attend, [](std::int64_t) { return [] {}; }});
  } else {
    chain_.Run(TaskList{tasks, [&](std::int64_t i, int) { attend(i, -1); }});
  }
}

void Executor::operator()(const AttentionStage& stage) {
  const KvLayerView kv = KvLayer(stage.layer);
  for (const AttentionPlan::Wave& wave : attention_plan_.waves()) {
    for (std::int32_t t = wave.tokens_begin; t < wave.tokens_end; ++t) {
      const std::int32_t units = attention_plan_.units_of_token()[static_cast<std::size_t>(t)];
      partials_left_[static_cast<std::size_t>(t)].store(units * dims_.num_kv_heads,
                                                        std::memory_order_relaxed);
    }
    AttendWave(wave, kv);
  }
}

}  // namespace millrace::cpu
