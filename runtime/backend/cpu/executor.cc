#include "runtime/backend/cpu/executor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "kernels/tile_layout.h"

namespace millrace::cpu {
namespace {

// Output features of one task of a product: whole tiles (of at most 16 rows), a few tasks for each
// worker so that they end together, and not less than what keeps a task well above the cost of
// handing it out.
constexpr std::int64_t kTile = 16;
constexpr std::int64_t kTasksPerWorker = 4;
constexpr std::int64_t kMinTaskBytes = std::int64_t{32} << 10;
// Columns of a feed-forward slice: whole activation blocks, so that a task quantises what it made.
constexpr std::int64_t kFfnSlice = 256;
// Queries of one unit of attention: K and V rows are widened once for all of them.
constexpr std::int64_t kQueryTile = 16;

std::int64_t CeilDivide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The least rows of a weight that make a task.
std::int64_t MinTaskRows(const Weight& weight) {
  return CeilDivide(kMinTaskBytes * weight.tile_rows, weight.tile_bytes);
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
      pool_(pool),
      rms_norm_(SelectRmsNorm(isa).fn),
      rope_(SelectRope(isa).fn),
      attention_(SelectAttention(limits.kv.dtype, isa)),
      moe_(SelectMoe(isa).fns),
      scratch_(static_cast<std::size_t>(pool->threads())) {
  for (const DTypeInfo& info : kDTypes) matmul_.push_back(SelectMatmul(info.dtype, isa).fn);
  for (std::size_t f = 0; f < kNumFormats; ++f) {
    quantize_.push_back(SelectQuantize(static_cast<ActivationFormat>(f), isa).fn);
  }
  const std::int32_t ranks = std::max(1, dims.experts_per_token);
  plan_.Reserve(limits.max_tokens * ranks, std::max(1, dims.num_experts));
  sequence_of_.resize(static_cast<std::size_t>(limits.max_tokens));
}

template <typename F>
void Executor::ParallelFor(std::int64_t count, F&& task) {
  if (count == 1) {  // one task needs no barrier
    task(std::int64_t{0}, 0);
    return;
  }
  cursor_.Reset();
  pool_->Run([&](int worker) {
    for (std::int64_t i = cursor_.Next(); i < count; i = cursor_.Next()) task(i, worker);
  });
}

template <typename F>
void Executor::ParallelForAhead(std::int64_t count, F&& task) {
  if (count == 1) {
    task(std::int64_t{0}, std::int64_t{-1});
    return;
  }
  cursor_.Reset();
  pool_->Run([&](int) {
    for (std::int64_t i = cursor_.Next(); i < count;) {
      const std::int64_t next = cursor_.Next();
      task(i, next < count ? next : -1);
      i = next;
    }
  });
}

void Executor::Run(const Program& program, const StepInput& input,
                   std::span<const std::int32_t> token_ids, StepOutput* output) {
  input_ = &input;
  token_ids_ = token_ids;
  output_ = output;
  for (std::size_t s = 0; s + 1 < input.query_start.size(); ++s) {
    std::fill(sequence_of_.begin() + input.query_start[s],
              sequence_of_.begin() + input.query_start[s + 1], static_cast<std::int32_t>(s));
  }
  for (const Stage& stage : program.stages) {
    std::visit([this](const auto& s) { (*this)(s); }, stage);
  }
}

void Executor::operator()(const EmbedStage& stage) {
  const Weight& table = weights_->Get(stage.table);
  const std::int64_t pairs = dims_.rope.rotary_dim / 2;
  ParallelFor(num_tokens(), [&](std::int64_t t, int) {
    DequantizeTiledRow(table.dtype, table.bytes.data(), token_ids_[static_cast<std::size_t>(t)],
                       dims_.hidden, table.tile_rows, buffers_->x + t * dims_.hidden);
    RopeAngles(input_->positions[static_cast<std::size_t>(t)], dims_.rope.inverse_frequency,
               dims_.rope.magnitude, buffers_->cosines + t * pairs, buffers_->sines + t * pairs);
  });
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

void Executor::NormAndQuantise(const float* x, const std::int32_t* rows, std::int64_t m,
                               WeightId norm, std::span<const Weight* const> readers) {
  const float* weight = weights_->Get(norm).vector();
  ParallelFor(m, [&](std::int64_t i, int) {
    const std::int64_t row = rows == nullptr ? i : rows[i];
    float* out = buffers_->normed + i * dims_.hidden;
    rms_norm_(x + row * dims_.hidden, weight, dims_.hidden, dims_.norm_eps, out);
    Quantise(out, i, dims_.hidden, readers);
  });
}

void Executor::Multiply(std::span<const Product> products, std::int64_t m) {
  struct Task {
    const Product* product;
    std::int64_t begin, end;
  };
  // At most a few tasks a worker and product; on the stack, so that a step allocates nothing.
  constexpr std::size_t kMaxTasks = 1024;
  std::array<Task, kMaxTasks> tasks;
  std::size_t count = 0;
  std::int64_t total = 0;
  for (const Product& product : products) total += product.weight->rows;
  const std::int64_t wanted = CeilDivide(total, pool_->threads() * kTasksPerWorker);
  std::int64_t slice =
      CeilDivide(std::max(wanted, MinTaskRows(*products.front().weight)), kTile) * kTile;
  slice = std::max(slice, CeilDivide(total, static_cast<std::int64_t>(kMaxTasks) - 8));
  for (const Product& product : products) {
    for (std::int64_t begin = 0; begin < product.weight->rows; begin += slice) {
      tasks[count++] = {&product, begin, std::min(begin + slice, product.weight->rows)};
    }
  }
  const auto weights_of = [&](std::int64_t i) {
    const Task& task = tasks[static_cast<std::size_t>(i)];
    return task.product->weight->tile(0, task.begin);
  };
  ParallelForAhead(static_cast<std::int64_t>(count), [&](std::int64_t i, std::int64_t next) {
    const auto& [product, begin, end] = tasks[static_cast<std::size_t>(i)];
    const Weight& weight = *product->weight;
    const ActivationFormat format = Info(weight.dtype).activation;
    MatmulParams params;
    params.w = weight.bytes.data();
    params.w_tile_bytes = weight.tile_bytes;
    params.k = weight.k;
    params.n_begin = begin;
    params.n_end = end;
    params.x = buffers_->quantised[static_cast<std::size_t>(format)];
    params.x_row_bytes = ActivationRowBytes(format, weight.k);
    params.m = m;
    params.y = product->y;
    params.y_stride = weight.rows;
    params.next_w = next < 0 ? nullptr : weights_of(next);
    matmul(weight.dtype)(params);
    if (product->bias == nullptr) return;
    for (std::int64_t row = 0; row < m; ++row) {
      float* y = product->y + row * weight.rows + begin;
      moe_.add(y, product->bias + begin, end - begin, y);
    }
  });
}

void Executor::operator()(const NormQkvStage& stage) {
  const Weight* q = &weights_->Get(stage.q);
  const Weight* k = &weights_->Get(stage.k);
  const Weight* v = &weights_->Get(stage.v);
  const auto bias = [&](WeightId id) {
    return id == kNoWeight ? nullptr : weights_->Get(id).vector();
  };
  NormAndQuantise(buffers_->x, nullptr, num_tokens(), stage.norm, std::array{q, k, v});
  const std::array<Product, 3> products = {{{q, bias(stage.q_bias), buffers_->q},
                                            {k, bias(stage.k_bias), buffers_->k},
                                            {v, bias(stage.v_bias), buffers_->v}}};
  Multiply(products, num_tokens());
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
  ParallelFor(num_tokens(), [&](std::int64_t token, int) {
    QkNormRope(token, q_norm, dims_.num_heads, buffers_->q);
    QkNormRope(token, k_norm, dims_.num_kv_heads, buffers_->k);
    AppendToken(token, sequence_of_[static_cast<std::size_t>(token)], kv);
  });
}

// Tokens [begin, end) of one wave: partials of every (tile of queries, kv head, partition), then
// merges. Partials lie as [token - begin][head][partition][head_dim + 2], with `partitions` places
// for each head.
void Executor::AttendTokens(std::int32_t layer, std::int64_t begin, std::int64_t end,
                            std::int64_t partitions) {
  const KvLayerView kv = KvLayer(layer);
  const std::int32_t group = dims_.num_heads / dims_.num_kv_heads;
  const std::int64_t entry = dims_.head_dim + 2;
  struct Tile {
    std::int64_t first;
    std::int32_t count;
    std::int64_t units_begin;
  };
  // Tiles never cross sequences. Their number is bounded by the tokens of a step.
  thread_local std::vector<Tile> tiles;
  tiles.clear();
  std::int64_t units = 0;
  for (std::int64_t t = begin; t < end;) {
    const std::int32_t s = sequence_of_[static_cast<std::size_t>(t)];
    const std::int64_t stop =
        std::min<std::int64_t>(end, input_->query_start[static_cast<std::size_t>(s) + 1]);
    const std::int64_t count = std::min(kQueryTile, stop - t);
    tiles.push_back({t, static_cast<std::int32_t>(count), units});
    const std::int64_t last = input_->positions[static_cast<std::size_t>(t + count - 1)];
    units += NumPartitions(last + 1) * dims_.num_kv_heads;
    t += count;
  }
  const std::vector<Tile>& wave = tiles;
  ParallelFor(units, [&](std::int64_t unit, int) {
    const auto after =
        std::upper_bound(wave.begin(), wave.end(), unit,
                         [](std::int64_t u, const Tile& tile) { return u < tile.units_begin; });
    const Tile& tile = *(after - 1);
    const auto local = static_cast<std::int32_t>(unit - tile.units_begin);
    const std::int32_t s = sequence_of_[static_cast<std::size_t>(tile.first)];
    AttentionPartialParams params;
    params.kv = kv;
    params.kv_head = local % dims_.num_kv_heads;
    params.group = group;
    params.block_table =
        input_->block_table.data() + input_->block_table_start[static_cast<std::size_t>(s)];
    params.partition = local / dims_.num_kv_heads;
    params.first_position = input_->positions[static_cast<std::size_t>(tile.first)];
    params.num_queries = tile.count;
    params.q_stride = std::int64_t{dims_.num_heads} * dims_.head_dim;
    params.q = buffers_->q + tile.first * params.q_stride +
               std::int64_t{params.kv_head} * group * dims_.head_dim;
    params.scale = 1.0F / std::sqrt(static_cast<float>(dims_.head_dim));
    // The kernel writes its group's entries one after another; heads of a partition are neighbours.
    params.partials = buffers_->partials +
                      (((tile.first - begin) * partitions + params.partition) * dims_.num_heads +
                       std::int64_t{params.kv_head} * group) *
                          entry;
    params.partial_query_stride = partitions * dims_.num_heads * entry;
    attention_.partial(params);
  });
  ParallelFor(end - begin, [&](std::int64_t i, int) {
    const std::int64_t token = begin + i;
    const auto used = static_cast<std::int32_t>(
        NumPartitions(std::int64_t{input_->positions[static_cast<std::size_t>(token)]} + 1));
    for (std::int32_t head = 0; head < dims_.num_heads; ++head) {
      attention_.merge(buffers_->partials + (i * partitions * dims_.num_heads + head) * entry,
                       dims_.num_heads * entry, used, dims_.head_dim,
                       buffers_->attended + (token * dims_.num_heads + head) * dims_.head_dim);
    }
  });
}

void Executor::operator()(const AttentionStage& stage) {
  const std::int64_t entry_floats = std::int64_t{dims_.num_heads} * (dims_.head_dim + 2);
  std::int64_t begin = 0;
  while (begin < num_tokens()) {
    // As many tokens as their partials leave room for; one always fits.
    std::int64_t partitions = 0;
    std::int64_t end = begin;
    while (end < num_tokens()) {
      const std::int64_t more = std::max(
          partitions,
          NumPartitions(std::int64_t{input_->positions[static_cast<std::size_t>(end)]} + 1));
      if (end > begin && (end + 1 - begin) * more * entry_floats > buffers_->partial_floats) break;
      partitions = more;
      ++end;
    }
    AttendTokens(stage.layer, begin, end, partitions);
    begin = end;
  }
}

void Executor::operator()(const OutputProjectionStage& stage) {
  const Weight* output = &weights_->Get(stage.output);
  ParallelFor(num_tokens(), [&](std::int64_t t, int) {
    Quantise(buffers_->attended + t * output->k, t, output->k, std::array{output});
  });
  Multiply(std::array{Product{output, nullptr, buffers_->projected}}, num_tokens());
  ParallelFor(num_tokens(), [&](std::int64_t t, int) {
    float* x = buffers_->x + t * dims_.hidden;
    moe_.add(x, buffers_->projected + t * dims_.hidden, dims_.hidden, x);
  });
}

void Executor::operator()(const NormRouterStage& stage) {
  const Weight* router = &weights_->Get(stage.router);
  NormAndQuantise(buffers_->x, nullptr, num_tokens(), stage.norm, std::array{router});
  Multiply(std::array{Product{router, nullptr, buffers_->router}}, num_tokens());
  const std::int32_t k = dims_.experts_per_token;
  ParallelFor(num_tokens(), [&](std::int64_t t, int) {
    moe_.route(buffers_->router + t * dims_.num_experts, dims_.num_experts, k, stage.normalise,
               buffers_->route_experts + t * k, buffers_->route_weights + t * k);
  });
}

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

void Executor::RunFeedForward(const FeedForward& ffn) {
  const auto groups = static_cast<std::int64_t>(plan_.groups.size());
  // Task i is a slice of group i / slices.
  const auto run = [&](const Weight& first_read, std::int64_t rows, std::int64_t slice,
                       auto&& task) {
    const std::int64_t slices = CeilDivide(rows, slice);
    const auto group_of = [&](std::int64_t i) -> const MoePlan::Group& {
      return plan_.groups[static_cast<std::size_t>(i / slices)];
    };
    ParallelForAhead(groups * slices, [&](std::int64_t i, std::int64_t next) {
      const std::byte* next_w =
          next < 0 ? nullptr : first_read.tile(group_of(next).expert, next % slices * slice);
      const std::int64_t begin = i % slices * slice;
      task(group_of(i), begin, std::min(begin + slice, rows), next_w);
    });
  };
  run(*ffn.gate, dims_.ffn, kFfnSlice,
      [&](const MoePlan::Group& group, std::int64_t begin, std::int64_t end,
          const std::byte* next_w) { GateUpTask(ffn, group, begin, end, next_w); });
  const std::int64_t parts =
      std::clamp<std::int64_t>(CeilDivide(pool_->threads() * kTasksPerWorker, groups), 1,
                               CeilDivide(dims_.hidden, MinTaskRows(*ffn.down)));
  const std::int64_t slice = CeilDivide(CeilDivide(dims_.hidden, parts), kTile) * kTile;
  run(*ffn.down, dims_.hidden, slice,
      [&](const MoePlan::Group& group, std::int64_t begin, std::int64_t end,
          const std::byte* next_w) { DownTask(*ffn.down, group, begin, end, next_w); });
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
  ParallelFor(num_tokens(), [&](std::int64_t t, int) {
    Quantise(buffers_->normed + t * dims_.hidden, t, dims_.hidden, std::array{ffn.gate, ffn.up});
  });
  RunFeedForward(ffn);
  ParallelFor(num_tokens(), [&](std::int64_t t, int) {
    float* x = buffers_->x + t * dims_.hidden;
    moe_.combine(x, buffers_->down + t * k * dims_.hidden, dims_.hidden,
                 buffers_->route_weights + t * k, k, dims_.hidden, x);
  });
}

// One expert that every token takes, with weight 1.
void Executor::operator()(const DenseFfnStage& stage) {
  const FeedForward ffn = {&weights_->Get(stage.gate), &weights_->Get(stage.up),
                           &weights_->Get(stage.down)};
  NormAndQuantise(buffers_->x, nullptr, num_tokens(), stage.norm, std::array{ffn.gate, ffn.up});
  std::fill_n(buffers_->route_experts, num_tokens(), 0);
  plan_.Build({buffers_->route_experts, static_cast<std::size_t>(num_tokens())}, 1, 1);
  RunFeedForward(ffn);
  ParallelFor(num_tokens(), [&](std::int64_t t, int) {
    float* x = buffers_->x + t * dims_.hidden;
    moe_.add(x, buffers_->down + t * dims_.hidden, dims_.hidden, x);
  });
}

void Executor::operator()(const NormHeadStage& stage) {
  const auto rows = static_cast<std::int64_t>(input_->logit_rows.size());
  if (rows == 0) return;
  const Weight* head = &weights_->Get(stage.head);
  NormAndQuantise(buffers_->x, input_->logit_rows.data(), rows, stage.norm, std::array{head});
  Multiply(std::array{Product{head, nullptr, buffers_->logits}}, rows);
  if (input_->return_logits) {
    output_->logits.assign(buffers_->logits, buffers_->logits + rows * dims_.vocab);
  }
}

void Executor::operator()(const SampleStage&) {
  const auto rows = static_cast<std::int64_t>(input_->samples.size());
  if (rows == 0) return;
  output_->sampled.resize(static_cast<std::size_t>(rows));
  ParallelFor(rows, [&](std::int64_t row, int worker) {
    const std::span<const float> logits(buffers_->logits + row * dims_.vocab,
                                        static_cast<std::size_t>(dims_.vocab));
    output_->sampled[static_cast<std::size_t>(row)] =
        SampleToken(logits, input_->samples[static_cast<std::size_t>(row)],
                    &scratch_[static_cast<std::size_t>(worker)]);
  });
}

}  // namespace millrace::cpu
