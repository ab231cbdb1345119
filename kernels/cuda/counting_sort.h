// A stable counting sort by one block: numbers the items of each bin in their order, bins in
// ascending order. Deterministic: counts are integers, so it does not matter who adds first, and
// places follow from the counts of what stands before.
//
// Each warp has a run of neighbouring items, so that its own counts and those of the warps before
// it give every item its place. Device code; all threads of a block of whole warps call together.
#ifndef MILLRACE_KERNELS_CUDA_COUNTING_SORT_H_
#define MILLRACE_KERNELS_CUDA_COUNTING_SORT_H_

#include <bit>
#include <cstdint>

#include "kernels/cuda/device.h"

namespace millrace::cuda {

// Shared memory that the sort works in.
struct CountingSortSpace {
  int* counts;  // [warps of the block][bins]
  int* starts;  // [bins + 1]: after CountBins, where each bin starts, then the number of items
};

constexpr int CountingSortInts(int warps, int bins) { return warps * bins + bins + 1; }

__device__ inline CountingSortSpace CountingSortSpaceAt(int* shared, int warps, int bins) {
  return {shared, shared + warps * bins};
}

struct ItemRange {
  int begin;
  int end;
};

// The items of this thread's warp: whole groups of 32 but for the last.
__device__ inline ItemRange ItemsOfWarp(int items) {
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int groups = (items + kWarpSize - 1) / kWarpSize;
  const int each = (groups + warps - 1) / warps * kWarpSize;
  const int begin = warp * each < items ? warp * each : items;
  return {begin, begin + each < items ? begin + each : items};
}

// Replaces values[0 .. n) by the sums of those before, and values[n] by the sum of all. One warp.
__device__ inline void SumBefore(int* values, int n) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  int carried = 0;
  for (int first = 0; first < n; first += kWarpSize) {
    const int i = first + lane;
    const int own = i < n ? values[i] : 0;
    int sum = own;
    for (int apart = 1; apart < kWarpSize; apart *= 2) {
      const int below = Shuffle(sum, (lane - apart) & (kWarpSize - 1));
      if (lane >= apart) sum += below;
    }
    if (i < n) values[i] = carried + sum - own;
    carried += Shuffle(sum, kWarpSize - 1);
  }
  if (lane == 0) values[n] = carried;
}

// Counts the items of each bin; `bin_of(i)` is in [0, bins), and first called behind a barrier.
// Leaves space.starts as described and in space.counts, for each warp and bin, how many items of
// the bin stand in the warps before.
template <typename BinOf>
__device__ void CountBins(int items, int bins, const CountingSortSpace& space,
                          const BinOf& bin_of) {
  const int threads = static_cast<int>(blockDim.x);
  const int thread = static_cast<int>(threadIdx.x);
  const int warps = threads / kWarpSize;
  for (int i = thread; i < warps * bins; i += threads) space.counts[i] = 0;
  SyncBlock();
  int* own = space.counts + thread / kWarpSize * bins;
  const ItemRange range = ItemsOfWarp(items);
  for (int i = range.begin + thread % kWarpSize; i < range.end; i += kWarpSize) {
    AtomicAdd(own + bin_of(i), 1);
  }
  SyncBlock();
  for (int bin = thread; bin < bins; bin += threads) {
    int before = 0;
    for (int warp = 0; warp < warps; ++warp) {
      const int count = space.counts[warp * bins + bin];
      space.counts[warp * bins + bin] = before;
      before += count;
    }
    space.starts[bin] = before;
  }
  SyncBlock();
  if (thread < kWarpSize) SumBefore(space.starts, bins);
  SyncBlock();
}

// The lanes of the warp whose bin is this lane's; 0 for a lane without an item.
__device__ inline unsigned LanesOfBin(int bin, bool has_item, int bins) {
  unsigned same = Ballot(has_item);
  for (int bit = 1; bit < bins; bit *= 2) {
    const bool set = (bin & bit) != 0;
    const unsigned with = Ballot(set);
    same &= set ? with : ~with;
  }
  return has_item ? same : 0U;
}

// Calls place(i, position) for each item, once CountBins has counted them with the same bin_of.
// Uses the counts up; ends without a barrier.
template <typename BinOf, typename Place>
__device__ void PlaceInOrder(int items, int bins, const CountingSortSpace& space,
                             const BinOf& bin_of, const Place& place) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  int* own = space.counts + static_cast<int>(threadIdx.x) / kWarpSize * bins;
  const ItemRange range = ItemsOfWarp(items);
  for (int first = range.begin; first < range.end; first += kWarpSize) {
    const int i = first + lane;
    const bool has_item = i < range.end;
    const int bin = has_item ? bin_of(i) : 0;
    const unsigned same = LanesOfBin(bin, has_item, bins);
    const unsigned before = same & ((1U << lane) - 1U);
    const int taken = own[bin];
    SyncWarp();
    if (has_item && before == 0) own[bin] = taken + std::popcount(same);
    SyncWarp();
    if (has_item) place(i, space.starts[bin] + taken + std::popcount(before));
  }
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_COUNTING_SORT_H_
