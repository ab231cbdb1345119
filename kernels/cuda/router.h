// The router of few tokens in one kernel: its product with the weights that all experts share
// (kernels/cuda/matmul.h), and behind it the choice of experts and the plan of their rows
// (kernels/cuda/route.h), by the block that writes the last logits. The same device code as that of
// the kernels it stands for, so the same bits.
//
// Host code; thread-safe. Owns nothing.
#ifndef MILLRACE_KERNELS_CUDA_ROUTER_H_
#define MILLRACE_KERNELS_CUDA_ROUTER_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/moe_plan.h"
#include "kernels/cuda/route.h"
#include "kernels/cuda/weight_layout.h"

namespace millrace::cuda {

// Whether one kernel does it all, or the product, the routing and the plan have their own. A pure
// function, so that the kernels of a shape are always the same; bits do not depend on it.
struct RouterWork {
  WeightForm form = WeightForm::kF32;
  std::int64_t k = 0;
  std::int32_t tokens = 0;
  bool allowed = true;
};
struct RouterChoice {
  bool fused;
  const char* why;
};
// One block routes them in two passes of its warps.
inline constexpr std::int32_t kMaxTokensOfRouterTail = 16;
RouterChoice ChooseRouter(const RouterWork& work);

struct RouterParams {
  // Dense rows of one matrix of F32 weights, whose y are the logits of `route`: all tokens, of
  // which there is one at least.
  MatmulParams product;
  RouteParams route;
  MoePlanParams plan;               // of route.experts
  std::int32_t* counter = nullptr;  // [1], the device's; 0 before and after
};

// Refuses what ChooseRouter refuses, and what LaunchRouteAndPlan does.
cudaError_t LaunchRouter(const RouterParams& params, cudaStream_t stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_ROUTER_H_
