// The router's choice: softmax over all experts, the best k, their weights; to the bit the
// operation of kernels/cpu/moe.h (MoeFns::route), which also says where NaNs go. Host code;
// thread-safe. Owns nothing.
#ifndef MILLRACE_KERNELS_CUDA_ROUTE_H_
#define MILLRACE_KERNELS_CUDA_ROUTE_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/moe_plan.h"

namespace millrace::cuda {

// All pointers are the device's.
struct RouteParams {
  const float* logits = nullptr;             // [*num_tokens][num_experts]
  const std::int32_t* num_tokens = nullptr;  // [1], at most max_tokens
  std::int32_t max_tokens = 0;
  std::int32_t num_experts = 0;        // E
  std::int32_t experts_per_token = 0;  // K <= E
  bool normalise = true;               // the weights of a token sum to 1
  std::int32_t* experts = nullptr;     // [*num_tokens][K], descending by weight
  float* weights = nullptr;            // [*num_tokens][K]
  bool chained = false;                // kernels/cuda/launch.h
};

// More than these are refused (cudaErrorInvalidValue): a thread keeps E / 16 probabilities in
// registers, and one lane of 16 each of the K weights.
inline constexpr std::int32_t kMaxRoutedExperts = 512;
inline constexpr std::int32_t kMaxExpertsPerToken = 16;

cudaError_t LaunchRoute(const RouteParams& params, cudaStream_t stream);

// So few tokens that one block routes them all: then routing and plan are one kernel.
inline constexpr std::int32_t kMaxTokensOfRouteAndPlan = 64;

// Both at once. REQUIRES: route.max_tokens <= kMaxTokensOfRouteAndPlan; plan.experts is
// route.experts, and their counts of tokens and experts are the same.
cudaError_t LaunchRouteAndPlan(const RouteParams& route, const MoePlanParams& plan,
                               cudaStream_t stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_ROUTE_H_
