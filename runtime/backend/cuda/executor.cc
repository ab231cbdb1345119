#include "runtime/backend/cuda/executor.h"

#include <algorithm>
#include <cmath>
#include <variant>

#include "base/check.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/rope_append.h"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/tail_plan.h"

namespace millrace::cuda {
namespace {

std::byte* RowsOf(const ActivationRows& rows, ActivationFormat format) {
  switch (format) {
    case ActivationFormat::kF32:
      return rows.f32;
    case ActivationFormat::kQ8x32:
      return rows.q8x32;
    case ActivationFormat::kQ8x256:
      return rows.q8x256;
  }
  return nullptr;
}

}  // namespace

Executor::Executor(const Program* program, const BackendLimits& limits, const DeviceFacts& device,
                   const WeightStore* weights, const StepBuffers* buffers, const StepTables* tables,
                   std::byte* kv_data, bool fused, LibraryProducts* library)
    : program_(*program),
      dims_(program->dims),
      limits_(limits),
      device_(device),
      weights_(weights),
      buffers_(buffers),
      tables_(tables),
      kv_data_(kv_data),
      chained_(device.chains),
      fused_(fused),
      library_(library) {}

cudaError_t Executor::Run(const StepShape& shape, int slot, cudaStream_t stream) {
  shape_ = &shape;
  slot_ = slot;
  stream_ = stream;
  error_ = cudaSuccess;
  for (stage_ = 0; stage_ < program_.stages.size() && error_ == cudaSuccess; ++stage_) {
    std::visit([this](const auto& stage) { (*this)(stage); }, program_.stages[stage_]);
  }
  return error_;
}

template <typename NextStage>
const NextStage& Executor::Next() const {
  const NextStage* next = stage_ + 1 < program_.stages.size()
                              ? std::get_if<NextStage>(&program_.stages[stage_ + 1])
                              : nullptr;
  MILLRACE_CHECK(next != nullptr, "the program's stages are in another order");
  return *next;
}

ActivationFormat Executor::FormatFor(const Weight& weight, std::int32_t count) const {
  const std::int32_t rows = count > 0 ? count : shape_->tokens;
  const bool served = library_ != nullptr &&
                      library_->Serves(weight.bytes.data(), FormOf(weight.shape.dtype), rows);
  return served ? ActivationFormat::kF32 : Info(weight.shape.dtype).activation;
}

ActivationRows Executor::RowsFor(const ActivationRows& rows,
                                 std::initializer_list<WeightId> readers,
                                 std::int32_t count) const {
  ActivationRows out;
  for (const WeightId reader : readers) {
    switch (FormatFor(weights_->Get(reader), count)) {
      case ActivationFormat::kF32:
        out.f32 = rows.f32;
        break;
      case ActivationFormat::kQ8x32:
        out.q8x32 = rows.q8x32;
        break;
      case ActivationFormat::kQ8x256:
        out.q8x256 = rows.q8x256;
        break;
    }
  }
  return out;
}

MatmulMatrix Executor::Matrix(WeightId id, const ActivationRows& x, std::int32_t count) const {
  const Weight& weight = weights_->Get(id);
  MatmulMatrix matrix;
  matrix.w = weight.bytes.data();
  matrix.expert_bytes = LaidOutBytes(weight.shape.dtype, weight.shape.rows, weight.shape.k);
  matrix.form = FormOf(weight.shape.dtype);
  matrix.n = static_cast<std::int32_t>(weight.shape.rows);
  matrix.x = RowsOf(x, FormatFor(weight, count));
  matrix.y_stride = weight.shape.rows;
  return matrix;
}

MatmulParams Executor::OverTokens(std::int64_t k) const {
  MatmulParams params;
  params.k = k;
  params.count = tables_->device().num_tokens;
  params.max_rows = shape_->tokens;
  params.chained = chained_;
  return params;
}

void Executor::Multiply(MatmulParams params, const MatmulTail& tail) {
  const MatmulDevice device = {.multiprocessors = device_.multiprocessors};
  const int matrices = params.num_matrices;
  if (library_ != nullptr) Note(library_->Take(&params, stream_));
  if (error_ != cudaSuccess) return;
  if (params.num_matrices == matrices) {
    Note(LaunchMatmulThen(params, tail, device, stream_));
    return;
  }
  // What the library took ends with no tail, and nothing waits for it but the next kernel.
  if (params.num_matrices > 0) Note(LaunchMatmul(params, device, stream_));
  Note(LaunchTail(tail, stream_));
}

MatmulTail Executor::Tail(TailKind kind) const {
  MatmulTail tail;
  tail.kind = kind;
  tail.counters = buffers_->counters;
  tail.num_counters = fused_ ? kStepCounters : 0;
  return tail;
}

NormParams Executor::OverRows(WeightId weight, const ActivationRows& out) const {
  NormParams params;
  params.x = buffers_->x;
  params.x_stride = dims_.hidden;
  params.weight = weights_->Get(weight).vector();
  params.n = dims_.hidden;
  params.eps = dims_.norm_eps;
  params.num_rows = tables_->device().num_tokens;
  params.max_rows = shape_->tokens;
  if (std::holds_alternative<ExpertsStage>(program_.stages[stage_])) {
    params.expert_rows = buffers_->down;
    params.expert_weights = buffers_->route_weights;
    params.experts_per_token = dims_.experts_per_token;
  }
  params.out = out;
  params.chained = chained_;
  return params;
}

NormParams Executor::NormOf(const NormQkvStage& stage) const {
  return OverRows(stage.norm, RowsFor(buffers_->hidden_rows, {stage.q, stage.k, stage.v}));
}

NormParams Executor::NormOf(const NormRouterStage& stage) const {
  const auto& experts = std::get<ExpertsStage>(program_.stages[stage_ + 2]);
  return OverRows(stage.norm,
                  RowsFor(buffers_->hidden_rows, {stage.router, experts.gate, experts.up}));
}

NormParams Executor::NormOf(const DenseFfnStage& stage) const {
  return OverRows(stage.norm, RowsFor(buffers_->hidden_rows, {stage.gate, stage.up}));
}

NormParams Executor::NormOf(const NormHeadStage& stage) const {
  NormParams norm =
      OverRows(stage.norm, RowsFor(buffers_->hidden_rows, {stage.head}, shape_->logits));
  norm.row_index = tables_->device().logit_rows;
  norm.num_rows = tables_->device().num_logits;
  norm.max_rows = shape_->logits;
  return norm;
}

MatmulTail Executor::NormOfNext() const {
  MatmulTail tail = Tail(TailKind::kNorm);
  std::visit(
      [&](const auto& next) {
        if constexpr (requires { NormOf(next); }) tail.norm = NormOf(next);
      },
      program_.stages[stage_ + 1]);
  MILLRACE_CHECK(tail.norm.x != nullptr, "the program's stages are in another order");
  if (tail.norm.max_rows == 0) tail.kind = TailKind::kNone;
  return tail;
}

void Executor::operator()(const EmbedStage& stage) {
  const TablePointers& tables = tables_->device();
  if (shape_->taken > 0) {
    TakeTokensParams take;
    take.taken = tables.taken;
    take.count = tables.num_taken;
    take.max_count = shape_->taken;
    take.sampled = buffers_->sampled_tokens[1 - slot_];
    take.token_ids = tables.token_ids;
    // Not chained: the copies before it are no kernels.
    Note(LaunchTakeTokens(take, stream_));
  }
  const Weight& table = weights_->Get(stage.table);
  EmbedParams params;
  params.dtype = table.shape.dtype;
  params.table = table.bytes.data();
  params.n = dims_.hidden;
  params.token_ids = tables.token_ids;
  params.num_tokens = tables.num_tokens;
  params.max_tokens = shape_->tokens;
  params.x = buffers_->x;
  params.chained = chained_ && shape_->taken > 0;
  Note(LaunchEmbed(params, stream_));
  Note(LaunchTail(NormOfNext(), stream_));
}

void Executor::operator()(const NormQkvStage& stage) {
  MatmulParams params = OverTokens(dims_.hidden);
  const WeightId weights[] = {stage.q, stage.k, stage.v};
  const WeightId biases[] = {stage.q_bias, stage.k_bias, stage.v_bias};
  float* const outputs[] = {buffers_->q, buffers_->k, buffers_->v};
  params.num_matrices = 3;
  for (std::size_t i = 0; i < 3; ++i) {
    MatmulMatrix& matrix = params.matrices[i];
    matrix = Matrix(weights[i], buffers_->hidden_rows);
    matrix.y = outputs[i];
    if (const Weight* bias = weights_->GetOrNull(biases[i])) matrix.bias = bias->vector();
  }
  Multiply(params, RopeAppend(Next<QkNormRopeAppendStage>()));
}

// The product before it has done it.
void Executor::operator()(const QkNormRopeAppendStage&) {}

KvLayerView Executor::KvLayer(std::int32_t layer) const {
  const std::int64_t layer_bytes = limits_.kv.layer_block_bytes() * limits_.num_kv_blocks;
  return {kv_data_ + layer * layer_bytes, limits_.kv};
}

MatmulTail Executor::RopeAppend(const QkNormRopeAppendStage& stage) const {
  const TablePointers& tables = tables_->device();
  MatmulTail tail = Tail(TailKind::kRopeAppend);
  RopeAppendParams& params = tail.rope_append;
  params.q = buffers_->q;
  params.q_stride = std::int64_t{dims_.num_heads} * dims_.head_dim;
  params.k = buffers_->k;
  params.k_stride = std::int64_t{dims_.num_kv_heads} * dims_.head_dim;
  params.v = buffers_->v;
  params.v_stride = params.k_stride;
  params.num_heads = dims_.num_heads;
  if (const Weight* norm = weights_->GetOrNull(stage.q_norm)) params.q_norm = norm->vector();
  if (const Weight* norm = weights_->GetOrNull(stage.k_norm)) params.k_norm = norm->vector();
  params.eps = dims_.norm_eps;
  params.pairing = dims_.rope.pairing;
  params.rotary_dim = dims_.rope.rotary_dim;
  params.cosines = buffers_->cosines;
  params.sines = buffers_->sines;
  params.positions = tables.positions;
  params.kv_slots = tables.kv_slots;
  params.kv = KvLayer(stage.layer);
  params.num_tokens = tables.num_tokens;
  params.max_tokens = shape_->tokens;
  params.chained = chained_;
  return tail;
}

void Executor::Attend(const AttentionStage& stage, std::size_t wave_index) {
  const TablePointers& tables = tables_->device();
  const WaveShape& wave = shape_->waves[wave_index];
  AttentionParams params;
  params.kv = KvLayer(stage.layer);
  params.num_heads = dims_.num_heads;
  params.units = tables.units + wave.units_begin;
  params.num_units = tables.wave_units + wave_index;
  params.max_units = wave.units;
  params.max_queries = wave.queries;
  params.queries = tables.queries;
  params.positions = tables.positions;
  params.block_table = tables.block_table;
  params.block_table_start = tables.block_table_start;
  params.q = buffers_->q;
  params.q_stride = std::int64_t{dims_.num_heads} * dims_.head_dim;
  params.scale = 1.0F / std::sqrt(static_cast<float>(dims_.head_dim));
  params.partials = buffers_->partials;
  params.partial_start = tables.partial_start;
  params.tile = wave.tile;
  params.chained = chained_;
  const ActivationRows out =
      RowsFor(buffers_->attended_rows, {Next<OutputProjectionStage>().output});
  const AttentionWork work = {.units = wave.units,
                              .queries_per_unit = wave.queries,
                              .group = dims_.num_heads / dims_.num_kv_heads,
                              .num_kv_heads = dims_.num_kv_heads};
  const AttentionTailChoice tail = ChooseAttentionTail({.work = work,
                                                        .tile = wave.tile,
                                                        .dtype = limits_.kv.dtype,
                                                        .head_dim = dims_.head_dim,
                                                        .tokens = shape_->tokens,
                                                        .num_counters = kStepCounters,
                                                        .multiprocessors = device_.multiprocessors,
                                                        .allowed = fused_});
  if (tail.fused) params.tail = {.counters = buffers_->counters, .out = out};
  Note(LaunchAttention(params, stream_));
  if (tail.fused) return;

  AttentionMergeParams merge;
  merge.partials = buffers_->partials;
  merge.partial_start = tables.partial_start;
  merge.positions = tables.positions;
  merge.first_token = wave.tokens_begin;
  merge.num_tokens = tables.wave_tokens_end + wave_index;
  merge.max_tokens = wave.tokens;
  merge.num_heads = dims_.num_heads;
  merge.head_dim = dims_.head_dim;
  merge.out = out;
  merge.chained = chained_;
  Note(LaunchAttentionMerge(merge, stream_));
}

void Executor::operator()(const AttentionStage& stage) {
  for (std::size_t wave = 0; wave < shape_->waves.size(); ++wave) Attend(stage, wave);
}

void Executor::operator()(const OutputProjectionStage& stage) {
  MatmulParams params = OverTokens(std::int64_t{dims_.num_heads} * dims_.head_dim);
  params.num_matrices = 1;
  params.matrices[0] = Matrix(stage.output, buffers_->attended_rows);
  params.matrices[0].add_to = buffers_->x;
  Multiply(params, NormOfNext());
}

void Executor::operator()(const NormHeadStage& stage) {
  if (shape_->logits == 0) return;
  const TablePointers& tables = tables_->device();
  MatmulParams params;
  params.k = dims_.hidden;
  params.count = tables.num_logits;
  params.max_rows = shape_->logits;
  params.num_matrices = 1;
  params.matrices[0] = Matrix(stage.head, buffers_->hidden_rows, shape_->logits);
  params.matrices[0].y = buffers_->logits;
  params.chained = chained_;
  Multiply(params);
}

void Executor::operator()(const SampleStage&) {
  if (!shape_->samples) return;
  SampleParams params;
  params.logits = buffers_->logits;
  params.logits_stride = dims_.vocab;
  params.vocab = dims_.vocab;
  params.packed = tables_->device().samples;
  params.max_rows = limits_.max_logit_rows;
  params.shape = shape_->sample;
  params.scratch = buffers_->sampling_scratch;
  params.results = buffers_->sampled[slot_];
  params.tokens = buffers_->sampled_tokens[slot_];
  params.chained = chained_;
  Note(LaunchSample(params, stream_));
}

}  // namespace millrace::cuda
