// The router's choice for some tokens by one block, and the plan of their experts' rows behind it;
// for the kernels that do it: alone, or behind the router's product.
//
// Half a warp routes a token: its 16 threads are the 16 virtual lanes of the numerics, and thread t
// keeps the probabilities of experts t, 16 + t, 32 + t and so on in registers.
//
// Device code, and the host's choice by the number of experts.
#ifndef MILLRACE_KERNELS_CUDA_ROUTE_BLOCK_H_
#define MILLRACE_KERNELS_CUDA_ROUTE_BLOCK_H_

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/device.h"
#include "kernels/cuda/exp.h"
#include "kernels/cuda/lanes16.h"
#include "kernels/cuda/moe_plan_block.h"
#include "kernels/cuda/route.h"

namespace millrace::cuda {

inline constexpr int kTokensPerWarp = 2;

// Where an expert stands in the order of choice, as a number: greater is better. Probabilities are
// never negative, so the order of their bits is theirs; a NaN comes behind all numbers, and behind
// it what has been chosen or is no expert.
inline constexpr std::uint32_t kNoRank = 0;
__device__ inline std::uint32_t RankOf(float p) { return p != p ? 1U : FloatBits(p) + 2U; }

// Ties go to the lower expert.
__device__ inline std::uint64_t Candidate(std::uint32_t rank, int expert) {
  return (std::uint64_t{rank} << 32) | ~static_cast<std::uint32_t>(expert);
}

__device__ inline std::uint64_t Best16(std::uint64_t candidate) {
  for (int apart = 8; apart > 0; apart /= 2) {
    const std::uint64_t other = ShuffleXor(candidate, apart);
    candidate = other > candidate ? other : candidate;
  }
  return candidate;
}

// Probabilities of one token: p[j] of expert 16 j + lane.
template <int kPerLane>
__device__ void Softmax16(const float* logits, int experts, int lane, float (&p)[kPerLane]) {
  const float lowest = BitsFloat(0xFF800000U);  // minus infinity
  float max = lowest;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = kLanes16 * j + lane;
    p[j] = e < experts ? logits[e] : lowest;
  }
  // With a NaN among the logits the total is NaN whatever the maximum, so its order does not
  // matter.
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) max = MaxOf(max, p[j]);
  max = Max16(max);
  float sum = 0.0F;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    p[j] = Exp(p[j] - max);  // 0 where there is no expert, or all are NaNs
    sum = sum + p[j];
  }
  const float total = Sum16(sum);
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) p[j] = p[j] / total;
}

// Routes two tokens, one for each half of the warp; a half without one (`logits` null) goes along
// and writes nothing. All 32 threads.
template <int kPerLane>
__device__ void RouteTokens(const RouteParams& params, const float* logits, std::int32_t* chosen,
                            float* weights) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes16;
  const int experts = logits == nullptr ? 0 : params.num_experts;
  float p[kPerLane];
  Softmax16(logits, experts, lane, p);
  std::uint32_t rank[kPerLane];
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    rank[j] = kLanes16 * j + lane < experts ? RankOf(p[j]) : kNoRank;
  }
  float own_weight = 0.0F;  // of rank `lane`
  int own_expert = 0;
  float sum = 0.0F;
  for (int r = 0; r < params.experts_per_token; ++r) {
    std::uint64_t best = 0;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const std::uint64_t candidate = Candidate(rank[j], kLanes16 * j + lane);
      best = candidate > best ? candidate : best;
    }
    best = Best16(best);
    const int expert = static_cast<int>(~static_cast<std::uint32_t>(best));
    const auto best_rank = static_cast<std::uint32_t>(best >> 32);
    const float weight = BitsFloat(best_rank == 1U ? 0x7FC00000U : best_rank - 2U);
    sum = sum + weight;
    if (r == lane) {
      own_weight = weight;
      own_expert = expert;
    }
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      if (kLanes16 * j + lane == expert) rank[j] = kNoRank;
    }
  }
  if (logits == nullptr || lane >= params.experts_per_token) return;
  chosen[lane] = own_expert;
  weights[lane] = params.normalise ? own_weight / sum : own_weight;
}

template <int kPerLane>
__device__ void RouteTokensOfWarp(const RouteParams& params, int warp) {
  const int half = static_cast<int>(threadIdx.x) / kLanes16 % kTokensPerWarp;
  const std::int64_t token = kTokensPerWarp * warp + half;
  const bool exists = token < *params.num_tokens;
  RouteTokens<kPerLane>(params, exists ? params.logits + token * params.num_experts : nullptr,
                        params.experts + token * params.experts_per_token,
                        params.weights + token * params.experts_per_token);
}

// All tokens, then the plan. All threads of the block; `shared` has MoePlanSharedBytes.
template <int kPerLane>
__device__ void RouteAndPlan(const RouteParams& route, const MoePlanParams& plan, int* shared) {
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  const int pairs = (route.max_tokens + kTokensPerWarp - 1) / kTokensPerWarp;
  for (int warp = static_cast<int>(threadIdx.x) / kWarpSize; warp < pairs; warp += warps) {
    RouteTokensOfWarp<kPerLane>(route, warp);
  }
  MakeMoePlan(plan, shared);
}

inline bool CanRoute(const RouteParams& params) {
  return params.num_experts >= 1 && params.num_experts <= kMaxRoutedExperts &&
         params.experts_per_token >= 1 && params.experts_per_token <= kMaxExpertsPerToken &&
         params.experts_per_token <= params.num_experts;
}

inline bool CanRouteAndPlan(const RouteParams& route, const MoePlanParams& plan) {
  return CanRoute(route) && plan.experts == route.experts &&
         plan.num_experts == route.num_experts && plan.experts_per_token == route.experts_per_token;
}

// Calls `launch` with what each thread must keep for so many experts: 4, 8, 16 or 32 of them, as a
// type whose value it is.
template <typename LaunchFn>
cudaError_t ByExperts(std::int32_t experts, const LaunchFn& launch) {
  if (experts <= 4 * kLanes16) return launch(std::integral_constant<int, 4>());
  if (experts <= 8 * kLanes16) return launch(std::integral_constant<int, 8>());
  if (experts <= 16 * kLanes16) return launch(std::integral_constant<int, 16>());
  return launch(std::integral_constant<int, 32>());
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_ROUTE_BLOCK_H_
