#include "kernels/cuda/route.h"

#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/route_block.h"

namespace millrace::cuda {
namespace {

constexpr int kRouteThreads = 128;  // of a block: few, so that few tokens spread over the GPU

template <int kPerLane>
__global__ void __launch_bounds__(kRouteThreads) RouteKernel(RouteParams params) {
  AwaitPrevious();
  const unsigned warp = (blockIdx.x * blockDim.x + threadIdx.x) / kWarpSize;
  RouteTokensOfWarp<kPerLane>(params, static_cast<int>(warp));
  LetNextBegin();
}

// Many experts take many registers, so that only half as many threads fit.
template <int kPerLane>
constexpr int kFusedWarps = kPerLane > 8 ? kPlanMaxWarps / 2 : kPlanMaxWarps;

template <int kPerLane>
__global__ void __launch_bounds__(kFusedWarps<kPerLane>* kWarpSize)
    RouteAndPlanKernel(RouteParams route, MoePlanParams plan) {
  AwaitPrevious();
  RouteAndPlan<kPerLane>(route, plan, BlockShared<int>());
  LetNextBegin();
}

}  // namespace

cudaError_t LaunchRoute(const RouteParams& params, cudaStream_t stream) {
  if (!CanRoute(params)) return cudaErrorInvalidValue;
  constexpr int kTokensPerBlock = kRouteThreads / kLanes16;
  const int blocks = (params.max_tokens + kTokensPerBlock - 1) / kTokensPerBlock;
  const LaunchShape shape = {dim3(static_cast<unsigned>(blocks)), dim3(kRouteThreads), 0,
                             params.chained};
  return ByExperts(params.num_experts, [&](auto per_lane) {
    return Launch(RouteKernel<decltype(per_lane)::value>, shape, stream, params);
  });
}

cudaError_t LaunchRouteAndPlan(const RouteParams& route, const MoePlanParams& plan,
                               cudaStream_t stream) {
  if (!CanRouteAndPlan(route, plan) || route.max_tokens > kMaxTokensOfRouteAndPlan) {
    return cudaErrorInvalidValue;
  }
  const int for_plan = MoePlanWarps(plan.max_tokens * plan.experts_per_token, plan.num_experts);
  const int for_tokens = (route.max_tokens + kTokensPerWarp - 1) / kTokensPerWarp;
  const int room = kPlanMaxCounts / plan.num_experts;
  return ByExperts(route.num_experts, [&](auto per_lane) {
    constexpr int kPerLane = decltype(per_lane)::value;
    const int most = std::min(room, kFusedWarps<kPerLane>);
    const int warps = std::clamp(std::max(for_plan, for_tokens), 1, most);
    const LaunchShape shape = {dim3(1), dim3(static_cast<unsigned>(warps * kWarpSize)),
                               MoePlanSharedBytes(warps, plan.num_experts), route.chained};
    return Launch(RouteAndPlanKernel<kPerLane>, shape, stream, route, plan);
  });
}

}  // namespace millrace::cuda
