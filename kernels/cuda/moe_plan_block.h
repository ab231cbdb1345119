// The plan of kernels/cuda/moe_plan.h by one block, for the kernels that make it: alone, or behind
// the routing of a few tokens. Device code, and the host's sums for the launch.
#ifndef MILLRACE_KERNELS_CUDA_MOE_PLAN_BLOCK_H_
#define MILLRACE_KERNELS_CUDA_MOE_PLAN_BLOCK_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/counting_sort.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/moe_plan.h"

namespace millrace::cuda {

inline constexpr int kPlanMaxWarps = 32;  // all that a block may have
// Counts of a block: 40 KiB, so that all stays below the 48 KiB that a kernel gets without asking.
inline constexpr int kPlanMaxCounts = 10 * 1024;

// Warps for a plan of at most `rows` rows: one for each 32 rows, and no more than leave room for
// the counts of all experts.
constexpr int MoePlanWarps(std::int32_t rows, std::int32_t num_experts) {
  const int wanted = (rows + kWarpSize - 1) / kWarpSize;
  const int room = kPlanMaxCounts / num_experts;
  const int most = room < kPlanMaxWarps ? room : kPlanMaxWarps;
  return wanted < 1 ? 1 : (wanted < most ? wanted : most);
}

constexpr std::size_t MoePlanSharedBytes(int warps, std::int32_t num_experts) {
  return static_cast<std::size_t>(CountingSortInts(warps, num_experts)) * sizeof(int);
}

// All threads of the block; `shared` has MoePlanSharedBytes. params.experts is read behind a
// barrier, so the block may have written it just before.
__device__ inline void MakeMoePlan(const MoePlanParams& params, int* shared) {
  const int threads = static_cast<int>(blockDim.x);
  const int thread = static_cast<int>(threadIdx.x);
  const int experts = params.num_experts;
  const int rows = *params.num_tokens * params.experts_per_token;
  const CountingSortSpace space = CountingSortSpaceAt(shared, threads / kWarpSize, experts);
  const auto expert_of = [&params](int slot) { return params.experts[slot]; };

  CountBins(rows, experts, space, expert_of);
  for (int e = thread; e <= experts; e += threads) params.offsets[e] = space.starts[e];
  if (params.statistics != nullptr) {
    for (int e = thread; e < experts; e += threads) {
      params.statistics[e] = space.starts[e + 1] - space.starts[e];
    }
  }
  PlaceInOrder(rows, experts, space, expert_of, [&params](int slot, int row) {
    params.tokens[row] = slot / params.experts_per_token;
    params.slots[row] = slot;
  });
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_MOE_PLAN_BLOCK_H_
