// The feed-forward of a layer: its router and experts, or the dense one.
#include "kernels/cuda/matmul_tail.h"
#include "kernels/cuda/moe_plan.h"
#include "kernels/cuda/route.h"
#include "kernels/cuda/router.h"
#include "kernels/cuda/swiglu.h"
#include "runtime/backend/cuda/executor.h"

namespace millrace::cuda {
namespace {

// Up to here the pairs of a step have mostly experts of their own: sorting them would share little
// and cost a kernel's dependency.
constexpr std::int32_t kMaxUnsortedTokens = 8;

}  // namespace

RouteParams Executor::Route(const NormRouterStage& stage) const {
  RouteParams params;
  params.logits = buffers_->router;
  params.num_tokens = tables_->device().num_tokens;
  params.max_tokens = shape_->tokens;
  params.num_experts = dims_.num_experts;
  params.experts_per_token = dims_.experts_per_token;
  params.normalise = stage.normalise;
  params.experts = buffers_->route_experts;
  params.weights = buffers_->route_weights;
  params.chained = chained_;
  return params;
}

MoePlanParams Executor::Plan(std::int32_t layer) const {
  MoePlanParams params;
  params.experts = buffers_->route_experts;
  params.num_tokens = tables_->device().num_tokens;
  params.max_tokens = shape_->tokens;
  params.experts_per_token = dims_.experts_per_token;
  params.num_experts = dims_.num_experts;
  params.offsets = buffers_->expert_offsets;
  params.tokens = buffers_->row_tokens;
  params.slots = buffers_->row_slots;
  params.statistics = buffers_->expert_rows + std::int64_t{layer} * dims_.num_experts;
  params.chained = chained_;
  return params;
}

void Executor::operator()(const NormRouterStage& stage) {
  MatmulParams params = OverTokens(dims_.hidden);
  params.num_matrices = 1;
  params.matrices[0] = Matrix(stage.router, buffers_->hidden_rows);
  params.matrices[0].y = buffers_->router;
  const RouterWork work = {.form = params.matrices[0].form,
                           .k = dims_.hidden,
                           .tokens = shape_->tokens,
                           .allowed = fused_};
  if (ChooseRouter(work).fused) {
    Note(LaunchRouter({params, Route(stage), Plan(stage.layer), buffers_->counters}, stream_));
    return;
  }
  Multiply(params);
  if (shape_->tokens <= kMaxTokensOfRouteAndPlan) {
    Note(LaunchRouteAndPlan(Route(stage), Plan(stage.layer), stream_));
    return;
  }
  Note(LaunchRoute(Route(stage), stream_));
  Note(LaunchMoePlan(Plan(stage.layer), stream_));
}

bool Executor::pairs_unsorted() const { return shape_->tokens <= kMaxUnsortedTokens; }

void Executor::GateUpSwiglu(WeightId gate, WeightId up, WeightId down, MatmulParams params) {
  params.num_matrices = 2;
  params.matrices[0] = Matrix(gate, buffers_->hidden_rows);
  params.matrices[0].y = buffers_->gate;
  params.matrices[1] = Matrix(up, buffers_->hidden_rows);
  params.matrices[1].y = buffers_->up;

  MatmulTail tail = Tail(TailKind::kSwiglu);
  SwigluParams& swiglu = tail.swiglu;
  swiglu.gate = buffers_->gate;
  swiglu.up = buffers_->up;
  swiglu.stride = dims_.ffn;
  swiglu.num_tokens = tables_->device().num_tokens;
  swiglu.max_tokens = shape_->tokens;
  swiglu.rows_per_token = params.rows_per_count;
  swiglu.ffn = dims_.ffn;
  swiglu.out = RowsFor(buffers_->ffn_rows, {down});
  swiglu.chained = chained_;
  Multiply(params, tail);
}

// Rows of `gate`, `up` and the feed-forward's activations are slots (token * K + rank) while pairs
// are unsorted, else rows of the plan. The norm of the next stage adds up what stands in `down`, of
// all slots of a token.
void Executor::operator()(const ExpertsStage& stage) {
  const std::int32_t k = dims_.experts_per_token;
  MatmulParams params = OverTokens(dims_.hidden);
  params.rows_per_count = k;
  params.max_rows = shape_->tokens * k;
  params.num_experts = dims_.num_experts;
  if (pairs_unsorted()) {
    params.experts = buffers_->route_experts;
    params.rows_per_x = k;
  } else {
    params.expert_offsets = buffers_->expert_offsets;
    params.x_rows = buffers_->row_tokens;
  }
  GateUpSwiglu(stage.gate, stage.up, stage.down, params);

  params.k = dims_.ffn;
  params.num_matrices = 1;
  params.matrices[0] = Matrix(stage.down, buffers_->ffn_rows);
  params.matrices[0].y = buffers_->down;
  params.x_rows = nullptr;
  params.rows_per_x = 1;
  params.y_rows = pairs_unsorted() ? nullptr : buffers_->row_slots;
  Multiply(params, NormOfNext());
}

void Executor::operator()(const DenseFfnStage& stage) {
  GateUpSwiglu(stage.gate, stage.up, stage.down, OverTokens(dims_.hidden));
  MatmulParams params = OverTokens(dims_.ffn);
  params.num_matrices = 1;
  params.matrices[0] = Matrix(stage.down, buffers_->ffn_rows);
  params.matrices[0].add_to = buffers_->x;
  Multiply(params, NormOfNext());
}

}  // namespace millrace::cuda
