// The executor's feed-forward: rows grouped by expert, so that a weight is read once for all rows.
#include <algorithm>
#include <array>

#include "base/math.h"
#include "runtime/backend/cpu/executor.h"

namespace millrace::cpu {
namespace {

// Columns of a feed-forward slice: whole activation blocks, so that a task quantises what it made.
constexpr std::int64_t kFfnSlice = 256;

}  // namespace

void Executor::GateUpTask(const FeedForward& ffn, const MoePlan::Group& group, std::int64_t begin,
                          std::int64_t end, const std::byte* next_w) {
  const Weight* const sides[] = {ffn.gate, ffn.up};
  float* const outputs[] = {buffers_->gate, buffers_->up};
  for (int side = 0; side < 2; ++side) {
    const Weight& weight = *sides[side];
    const ActivationFormat format = Info(weight.dtype).activation;
    MatmulParams params;
    params.w = weight.expert(group.expert);
    params.w_tile_bytes = weight.tile_bytes;
    params.k = weight.k;
    params.n_begin = begin;
    params.n_end = end;
    params.x = buffers_->quantised[static_cast<std::size_t>(format)];
    params.x_row_bytes = ActivationRowBytes(format, weight.k);
    params.x_rows = plan_.tokens.data() + group.begin;
    params.m = group.count;
    params.y = outputs[side] + std::int64_t{group.begin} * dims_.ffn;
    params.y_stride = dims_.ffn;
    params.next_w = side == 0 ? ffn.up->tile(group.expert, begin) : next_w;
    matmul(weight.dtype)(params);
  }
  const ActivationFormat format = Info(ffn.down->dtype).activation;
  const auto f = static_cast<std::size_t>(format);
  for (std::int64_t row = group.begin; row < group.begin + group.count; ++row) {
    float* gate = buffers_->gate + row * dims_.ffn + begin;
    moe_.swiglu(gate, buffers_->up + row * dims_.ffn + begin, end - begin, gate);
    std::byte* out = buffers_->ffn_quantised[f] + row * ActivationRowBytes(format, dims_.ffn) +
                     ActivationRowBytes(format, begin);
    quantize_[f](gate, end - begin, out);
  }
}

void Executor::DownTask(const Weight& down, const MoePlan::Group& group, std::int64_t begin,
                        std::int64_t end, const std::byte* next_w) {
  const ActivationFormat format = Info(down.dtype).activation;
  MatmulParams params;
  params.w = down.expert(group.expert);
  params.w_tile_bytes = down.tile_bytes;
  params.k = down.k;
  params.n_begin = begin;
  params.n_end = end;
  params.x_row_bytes = ActivationRowBytes(format, down.k);
  params.x =
      buffers_->ffn_quantised[static_cast<std::size_t>(format)] + group.begin * params.x_row_bytes;
  params.m = group.count;
  params.y = buffers_->down;
  params.y_stride = dims_.hidden;
  params.y_rows = plan_.slots.data() + group.begin;
  params.next_w = next_w;
  matmul(down.dtype)(params);
}

template <typename Before, typename After>
void Executor::RunFeedForward(const FeedForward& ffn, const Before& before, const After& after) {
  const auto groups = static_cast<std::int64_t>(plan_.groups.size());
  // Task i of a list is a slice of group i / slices.
  const auto tasks = [&](const Weight& first_read, std::int64_t rows, std::int64_t slice,
                         auto&& task) {
    const std::int64_t slices = CeilDivide(rows, slice);
    const auto group_of = [this, slices](std::int64_t i) -> const MoePlan::Group& {
      return plan_.groups[static_cast<std::size_t>(i / slices)];
    };
    const auto weights = [=, &first_read](std::int64_t i) {
      return first_read.tile(group_of(i).expert, i % slices * slice);
    };
    return AheadTaskList{groups * slices,
                         [=](std::int64_t i, std::int64_t next) {
                           const std::int64_t begin = i % slices * slice;
                           task(group_of(i), begin, std::min(begin + slice, rows),
                                next < 0 ? nullptr : weights(next));
                         },
                         [=](std::int64_t i) { return AskAhead(weights(i)); }};
  };
  const std::int64_t parts =
      std::clamp<std::int64_t>(CeilDivide(threads_ * kTasksPerWorker, groups), 1,
                               CeilDivide(dims_.hidden, MinTaskRows(*ffn.down)));
  const std::int64_t down_slice =
      CeilDivide(CeilDivide(dims_.hidden, parts), kSliceMultiple) * kSliceMultiple;
  chain_.Run(
      before,
      tasks(*ffn.gate, dims_.ffn, kFfnSlice,
            [this, &ffn](const MoePlan::Group& group, std::int64_t begin, std::int64_t end,
                         const std::byte* next_w) { GateUpTask(ffn, group, begin, end, next_w); }),
      tasks(*ffn.down, dims_.hidden, down_slice,
            [this, &ffn](const MoePlan::Group& group, std::int64_t begin, std::int64_t end,
                         const std::byte* next_w) {
              DownTask(*ffn.down, group, begin, end, next_w);
            }),
      after);
}

void Executor::operator()(const ExpertsStage& stage) {
  const std::int32_t k = dims_.experts_per_token;
  plan_.Build({buffers_->route_experts, static_cast<std::size_t>(num_tokens() * k)}, k,
              dims_.num_experts);
  output_->moe.active_experts.push_back(static_cast<std::int32_t>(plan_.groups.size()));
  for (const MoePlan::Group& group : plan_.groups)
    output_->moe.rows_per_expert.push_back(group.count);
  const FeedForward ffn = {&weights_->Get(stage.gate), &weights_->Get(stage.up),
                           &weights_->Get(stage.down)};
  const auto quantise = [&](std::int64_t t, int) {
    Quantise(buffers_->normed + t * dims_.hidden, t, dims_.hidden, std::array{ffn.gate, ffn.up});
  };
  const auto combine = [&](std::int64_t t, int) {
    float* x = buffers_->x + t * dims_.hidden;
    moe_.combine(x, buffers_->down + t * k * dims_.hidden, dims_.hidden,
                 buffers_->route_weights + t * k, k, dims_.hidden, x);
  };
  RunFeedForward(ffn, TaskList{num_tokens(), quantise}, TaskList{num_tokens(), combine});
}

// One expert that every token takes, with weight 1.
void Executor::operator()(const DenseFfnStage& stage) {
  const FeedForward ffn = {&weights_->Get(stage.gate), &weights_->Get(stage.up),
                           &weights_->Get(stage.down)};
  std::fill_n(buffers_->route_experts, num_tokens(), 0);
  plan_.Build({buffers_->route_experts, static_cast<std::size_t>(num_tokens())}, 1, 1);
  const float* weight = weights_->Get(stage.norm).vector();
  const auto norm = [&](std::int64_t t, int) {
    NormAndQuantise(buffers_->x + t * dims_.hidden, t, weight, std::array{ffn.gate, ffn.up});
  };
  const auto add = [&](std::int64_t t, int) {
    float* x = buffers_->x + t * dims_.hidden;
    moe_.add(x, buffers_->down + t * dims_.hidden, dims_.hidden, x);
  };
  RunFeedForward(ffn, TaskList{num_tokens(), norm}, TaskList{num_tokens(), add});
}

}  // namespace millrace::cpu
