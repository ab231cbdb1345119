#include "kernels/cuda/moe_plan.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/moe_plan_block.h"

namespace millrace::cuda {
namespace {

__global__ void __launch_bounds__(kPlanMaxWarps* kWarpSize) MoePlanKernel(MoePlanParams params) {
  AwaitPrevious();
  MakeMoePlan(params, BlockShared<int>());
  LetNextBegin();
}

}  // namespace

cudaError_t LaunchMoePlan(const MoePlanParams& params, cudaStream_t stream) {
  if (params.num_experts < 1 || params.num_experts > kMaxPlannedExperts) {
    return cudaErrorInvalidValue;
  }
  const int warps = MoePlanWarps(params.max_tokens * params.experts_per_token, params.num_experts);
  const LaunchShape shape = {dim3(1), dim3(static_cast<unsigned>(warps * kWarpSize)),
                             MoePlanSharedBytes(warps, params.num_experts), params.chained};
  return Launch(MoePlanKernel, shape, stream, params);
}

}  // namespace millrace::cuda
