// Which rows each expert computes in a step, made on the device: the (token, rank) pairs grouped by
// expert, so that a weight is read once for all its rows. The same plan as the CPU's
// (runtime/backend/cpu/moe_plan.h) but for the order of experts, which is ascending here.
//
// One block does it: a step has at most some ten thousand pairs, and a second block would cost a
// second kernel. Host code; thread-safe. Owns nothing.
#ifndef MILLRACE_KERNELS_CUDA_MOE_PLAN_H_
#define MILLRACE_KERNELS_CUDA_MOE_PLAN_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace millrace::cuda {

// All pointers are the device's. R = *num_tokens * experts_per_token rows.
struct MoePlanParams {
  // [*num_tokens][experts_per_token], in [0, num_experts), the expert of each rank.
  const std::int32_t* experts = nullptr;
  const std::int32_t* num_tokens = nullptr;  // [1], at most max_tokens
  std::int32_t max_tokens = 0;
  std::int32_t experts_per_token = 1;
  std::int32_t num_experts = 1;

  // Row r of expert e has offsets[e] <= r < offsets[e + 1]; rows of an expert are in token order.
  std::int32_t* offsets = nullptr;  // [num_experts + 1]
  std::int32_t* tokens = nullptr;   // [R] the token of each row
  std::int32_t* slots = nullptr;    // [R] token * experts_per_token + rank of each row
  // Rows of each expert, for metrics: [num_experts] of this layer; may be null.
  std::int32_t* statistics = nullptr;

  bool chained = false;  // kernels/cuda/launch.h
};

// More experts than this are refused (cudaErrorInvalidValue): their counts would not fit into the
// shared memory that every GPU has.
inline constexpr std::int32_t kMaxPlannedExperts = 1024;

cudaError_t LaunchMoePlan(const MoePlanParams& params, cudaStream_t stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_MOE_PLAN_H_
