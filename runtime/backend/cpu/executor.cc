#include "runtime/backend/cpu/executor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "kernels/rope_angles.h"
#include "kernels/tile_layout.h"

namespace millrace::cpu {
namespace {

// With more workers units must be smaller, or some have none.
constexpr int kThreadsForLargeUnits = 8;

// Of one kv head's unit.
std::int32_t QueriesOfUnit(const ProgramDims& dims, int threads) {
  if (threads > kThreadsForLargeUnits) return AttentionPlan::kMaxQueries;
  return std::max(1, kAttentionRows / (dims.num_heads / dims.num_kv_heads));
}

}  // namespace

Executor::Executor(Isa isa, const ProgramDims& dims, const BackendLimits& limits,
                   const WeightStore* weights, StepBuffers* buffers, std::byte* kv_data,
                   ThreadPool* pool)
    : dims_(dims),
      limits_(limits),
      weights_(weights),
      buffers_(buffers),
      kv_data_(kv_data),
      threads_(pool->threads()),
      chain_(pool),
      rms_norm_(SelectRmsNorm(isa).fn),
      rope_(SelectRope(isa).fn),
      attention_(SelectAttention(limits.kv.dtype, isa)),
      moe_(SelectMoe(isa).fns),
      attention_plan_(QueriesOfUnit(dims, pool->threads())),
      scratch_(static_cast<std::size_t>(pool->threads())),
      partials_left_(static_cast<std::size_t>(limits.max_tokens)) {
  for (const DTypeInfo& info : kDTypes) matmul_.push_back(SelectMatmul(info.dtype, isa).fn);
  for (std::size_t f = 0; f < kNumFormats; ++f) {
    quantize_.push_back(SelectQuantize(static_cast<ActivationFormat>(f), isa).fn);
  }
  const std::int32_t ranks = std::max(1, dims.experts_per_token);
  plan_.Reserve(limits.max_tokens * ranks, std::max(1, dims.num_experts));
  attention_plan_.Reserve(limits);
}

void Executor::Run(const Program& program, const StepInput& input,
                   std::span<const std::int32_t> token_ids, StepOutput* output) {
  input_ = &input;
  token_ids_ = token_ids;
  output_ = output;
  PlanAttention(input);
  for (const Stage& stage : program.stages) {
    std::visit([this](const auto& s) { (*this)(s); }, stage);
  }
}

void Executor::operator()(const EmbedStage& stage) {
  const Weight& table = weights_->Get(stage.table);
  const std::int64_t pairs = dims_.rope.rotary_dim / 2;
  const auto embed = [&](std::int64_t t, int) {
    DequantizeTiledRow(table.dtype, table.bytes.data(), token_ids_[static_cast<std::size_t>(t)],
                       dims_.hidden, table.tile_rows, buffers_->x + t * dims_.hidden);
    RopeAngles(input_->positions[static_cast<std::size_t>(t)], dims_.rope.inverse_frequency,
               dims_.rope.magnitude, buffers_->cosines + t * pairs, buffers_->sines + t * pairs);
  };
  chain_.Run(TaskList{num_tokens(), embed});
}

void Executor::Quantise(const float* row, std::int64_t index, std::int64_t k,
                        std::span<const Weight* const> readers) {
  std::array<bool, kNumFormats> done{};
  for (const Weight* reader : readers) {
    const ActivationFormat format = Info(reader->dtype).activation;
    const auto f = static_cast<std::size_t>(format);
    if (std::exchange(done[f], true)) continue;
    quantize_[f](row, k, buffers_->quantised[f] + index * ActivationRowBytes(format, k));
  }
}

void Executor::NormAndQuantise(const float* x, std::int64_t index, const float* norm,
                               std::span<const Weight* const> readers) {
  float* out = buffers_->normed + index * dims_.hidden;
  rms_norm_(x, norm, dims_.hidden, dims_.norm_eps, out);
  Quantise(out, index, dims_.hidden, readers);
}

void Executor::MultiplyTask(const ProductTasks::Task& task, std::int64_t m,
                            const std::byte* next_w) {
  const Product& product = *task.product;
  const Weight& weight = *product.weight;
  const ActivationFormat format = Info(weight.dtype).activation;
  MatmulParams params;
  params.w = weight.bytes.data();
  params.w_tile_bytes = weight.tile_bytes;
  params.k = weight.k;
  params.n_begin = task.begin;
  params.n_end = task.end;
  params.x = buffers_->quantised[static_cast<std::size_t>(format)];
  params.x_row_bytes = ActivationRowBytes(format, weight.k);
  params.m = m;
  params.y = product.y;
  params.y_stride = weight.rows;
  params.next_w = next_w;
  matmul(weight.dtype)(params);
  const std::int64_t n = task.end - task.begin;
  for (std::int64_t row = 0; row < m; ++row) {
    const std::int64_t at = row * weight.rows + task.begin;
    if (product.bias != nullptr) {
      moe_.add(product.y + at, product.bias + task.begin, n, product.y + at);
    }
    if (product.add_to != nullptr) {
      moe_.add(product.add_to + at, product.y + at, n, product.add_to + at);
    }
  }
}

template <typename Before, typename... After>
void Executor::Multiply(std::span<const Product> products, std::int64_t m, const Before& before,
                        const After&... after) {
  const ProductTasks tasks(products, threads_);
  chain_.Run(before,
             AheadTaskList{tasks.count(),
                           [&](std::int64_t i, std::int64_t next) {
                             MultiplyTask(tasks[i], m, tasks.weights(next));
                           },
                           [&](std::int64_t i) { return AskAhead(tasks.weights(i)); }},
             after...);
}

void Executor::operator()(const NormQkvStage& stage) {
  const Weight* q = &weights_->Get(stage.q);
  const Weight* k = &weights_->Get(stage.k);
  const Weight* v = &weights_->Get(stage.v);
  const auto vector = [&](WeightId id) {
    return id == kNoWeight ? nullptr : weights_->Get(id).vector();
  };
  const auto norm = [&](std::int64_t t, int) {
    NormAndQuantise(buffers_->x + t * dims_.hidden, t, vector(stage.norm), std::array{q, k, v});
  };
  const std::array<Product, 3> products = {{{q, vector(stage.q_bias), buffers_->q},
                                            {k, vector(stage.k_bias), buffers_->k},
                                            {v, vector(stage.v_bias), buffers_->v}}};
  Multiply(products, num_tokens(), TaskList{num_tokens(), norm});
}

KvLayerView Executor::KvLayer(std::int32_t layer) const {
  const std::int64_t layer_bytes = limits_.kv.layer_block_bytes() * limits_.num_kv_blocks;
  return {kv_data_ + layer * layer_bytes, limits_.kv};
}

void Executor::QkNormRope(std::int64_t token, const Weight* norm, std::int32_t heads,
                          float* rows) const {
  const std::int64_t pairs = dims_.rope.rotary_dim / 2;
  for (std::int32_t head = 0; head < heads; ++head) {
    float* row = rows + (token * heads + head) * dims_.head_dim;
    if (norm != nullptr) rms_norm_(row, norm->vector(), dims_.head_dim, dims_.norm_eps, row);
    rope_(row, dims_.rope.rotary_dim, dims_.rope.pairing, buffers_->cosines + token * pairs,
          buffers_->sines + token * pairs);
  }
}

void Executor::AppendToken(std::int64_t token, std::int32_t sequence, const KvLayerView& kv) {
  const std::int32_t position = input_->positions[static_cast<std::size_t>(token)];
  const std::int32_t block_size = limits_.kv.block_size;
  const std::int32_t first = input_->block_table_start[static_cast<std::size_t>(sequence)];
  const std::int32_t entry = first + position / block_size;
  const std::int32_t block = input_->block_table[static_cast<std::size_t>(entry)];
  for (std::int32_t head = 0; head < dims_.num_kv_heads; ++head) {
    const std::int64_t row = (token * dims_.num_kv_heads + head) * dims_.head_dim;
    attention_.append(kv, block, head, position % block_size, buffers_->k + row, buffers_->v + row);
  }
}

void Executor::operator()(const QkNormRopeAppendStage& stage) {
  const Weight* q_norm = stage.q_norm == kNoWeight ? nullptr : &weights_->Get(stage.q_norm);
  const Weight* k_norm = stage.k_norm == kNoWeight ? nullptr : &weights_->Get(stage.k_norm);
  const KvLayerView kv = KvLayer(stage.layer);
  const auto append = [&](std::int64_t token, int) {
    QkNormRope(token, q_norm, dims_.num_heads, buffers_->q);
    QkNormRope(token, k_norm, dims_.num_kv_heads, buffers_->k);
    AppendToken(token, attention_plan_.sequence_of(token), kv);
  };
  chain_.Run(TaskList{num_tokens(), append});
}

void Executor::operator()(const OutputProjectionStage& stage) {
  const Weight* output = &weights_->Get(stage.output);
  const auto quantise = [&](std::int64_t t, int) {
    Quantise(buffers_->attended + t * output->k, t, output->k, std::array{output});
  };
  Multiply(std::array{Product{output, nullptr, buffers_->projected, buffers_->x}}, num_tokens(),
           TaskList{num_tokens(), quantise});
}

void Executor::operator()(const NormRouterStage& stage) {
  const Weight* router = &weights_->Get(stage.router);
  const float* weight = weights_->Get(stage.norm).vector();
  const auto norm = [&](std::int64_t t, int) {
    NormAndQuantise(buffers_->x + t * dims_.hidden, t, weight, std::array{router});
  };
  const std::int32_t k = dims_.experts_per_token;
  const auto route = [&](std::int64_t t, int) {
    moe_.route(buffers_->router + t * dims_.num_experts, dims_.num_experts, k, stage.normalise,
               buffers_->route_experts + t * k, buffers_->route_weights + t * k);
  };
  Multiply(std::array{Product{router, nullptr, buffers_->router}}, num_tokens(),
           TaskList{num_tokens(), norm}, TaskList{num_tokens(), route});
}

void Executor::operator()(const NormHeadStage& stage) {
  const auto rows = static_cast<std::int64_t>(input_->logit_rows.size());
  if (rows == 0) return;
  const Weight* head = &weights_->Get(stage.head);
  const float* weight = weights_->Get(stage.norm).vector();
  const auto norm = [&](std::int64_t row, int) {
    const std::int64_t token = input_->logit_rows[static_cast<std::size_t>(row)];
    NormAndQuantise(buffers_->x + token * dims_.hidden, row, weight, std::array{head});
  };
  Multiply(std::array{Product{head, nullptr, buffers_->logits}}, rows, TaskList{rows, norm});
  if (input_->return_logits) {
    output_->logits.assign(buffers_->logits, buffers_->logits + rows * dims_.vocab);
  }
}

void Executor::operator()(const SampleStage&) {
  const auto rows = static_cast<std::int64_t>(input_->samples.size());
  if (rows == 0) return;
  output_->sampled.resize(static_cast<std::size_t>(rows));
  const auto sample = [&](std::int64_t row, int worker) {
    const std::span<const float> logits(buffers_->logits + row * dims_.vocab,
                                        static_cast<std::size_t>(dims_.vocab));
    output_->sampled[static_cast<std::size_t>(row)] =
        SampleToken(logits, input_->samples[static_cast<std::size_t>(row)],
                    &scratch_[static_cast<std::size_t>(worker)]);
  };
  chain_.Run(TaskList{rows, sample});
}

}  // namespace millrace::cpu
