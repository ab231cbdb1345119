// Small blocks, so that the weights of few tokens come through many multiprocessors; and they are
// asked for while the kernel before still runs.
#include "kernels/cuda/router.h"

#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/lanes16.h"
#include "kernels/cuda/last_block.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matmul_float_block.h"
#include "kernels/cuda/route_block.h"

namespace millrace::cuda {
namespace {

constexpr int kRouterThreads = 128;
constexpr int kExpertsOfBlock = kRouterThreads / kLanes16;  // one for each half warp
constexpr int kMinBlocks = 2;  // there are few: registers are for weights that are on their way
// Tokens that share a load of weights, where there are more than two and room for them.
constexpr int kSharedColumns = 4;

// Rows of activations that a block takes; 0 where not even one has room.
int ColumnsFor(std::int32_t tokens, std::int64_t k) {
  for (const int columns : {tokens <= 2 ? 1 : kSharedColumns, 1}) {
    if (StagedBytes(columns, k) <= static_cast<std::int64_t>(kDefaultSharedLimit)) return columns;
  }
  return 0;
}

template <int kColumns, int kPerLane>
__global__ void __launch_bounds__(kRouterThreads, kMinBlocks)
    RouterKernel(const __grid_constant__ RouterParams params) {
  // Rows of 2 048 values as a whole, or an eighth: what comes during the wait need not come after
  // it, and registers are there.
  constexpr int kAhead = kColumns == 1 ? 32 : 4;
  const MatmulParams& product = params.product;
  const int half = static_cast<int>(threadIdx.x) / kLanes16;
  const std::int32_t expert = static_cast<int>(blockIdx.y) * kExpertsOfBlock + half;
  const bool has_tokens = RunFloat<WeightForm::kF32, 1, kColumns, kAhead, true>(
      product, product.matrices[0], static_cast<int>(blockIdx.x), expert);
  if (!has_tokens) return;
  const int token_blocks = (RowCount(product) + kColumns - 1) / kColumns;
  if (!IsLastBlock(params.counter, token_blocks * static_cast<int>(gridDim.y))) return;
  RouteAndPlan<kPerLane>(params.route, params.plan, BlockShared<int>());
}

}  // namespace

RouterChoice ChooseRouter(const RouterWork& work) {
  if (!work.allowed) return {false, "switched off"};
  if (work.form != WeightForm::kF32) {
    return {false, "routers are F32 but for rare files, so other types have no such kernel"};
  }
  if (work.tokens > kMaxTokensOfRouterTail) {
    return {false, "many tokens: one block's warps would route them pass after pass"};
  }
  if (ColumnsFor(work.tokens, work.k) == 0) {
    return {false, "rows so long that a block has no room for one"};
  }
  return {true, "few tokens: whoever writes the last logits routes and plans, a launch less"};
}

cudaError_t LaunchRouter(const RouterParams& params, cudaStream_t stream) {
  const MatmulParams& product = params.product;
  const MatmulMatrix& matrix = product.matrices[0];
  const bool is_router = product.num_matrices == 1 && product.experts == nullptr &&
                         product.expert_offsets == nullptr && matrix.y == params.route.logits &&
                         matrix.n == params.route.num_experts && matrix.y_stride == matrix.n &&
                         params.counter != nullptr;
  if (!is_router || !CanRouteAndPlan(params.route, params.plan) ||
      !ChooseRouter({.form = matrix.form, .k = product.k, .tokens = product.max_rows}).fused) {
    return cudaErrorInvalidValue;
  }
  const int columns = ColumnsFor(product.max_rows, product.k);
  const std::size_t shared_bytes =
      std::max(static_cast<std::size_t>(StagedBytes(columns, product.k)),
               MoePlanSharedBytes(kRouterThreads / kWarpSize, matrix.n));
  const LaunchShape shape = {
      dim3(static_cast<unsigned>((product.max_rows + columns - 1) / columns),
           static_cast<unsigned>((matrix.n + kExpertsOfBlock - 1) / kExpertsOfBlock)),
      dim3(kRouterThreads), shared_bytes, product.chained};
  return ByExperts(params.route.num_experts, [&](auto per_lane) {
    constexpr int kPerLane = decltype(per_lane)::value;
    return Launch(columns == 1 ? RouterKernel<1, kPerLane> : RouterKernel<kSharedColumns, kPerLane>,
                  shape, stream, params);
  });
}

}  // namespace millrace::cuda
