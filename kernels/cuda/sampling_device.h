// What the kernels of sampling share: the order of logits as numbers, where things lie in the
// scratch memory, the passes of a step. Device code but for the layout. Internal to
// kernels/cuda/sampling*.cu.
#ifndef MILLRACE_KERNELS_CUDA_SAMPLING_DEVICE_H_
#define MILLRACE_KERNELS_CUDA_SAMPLING_DEVICE_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/sampling.h"
#include "kernels/sampling_weights.h"

namespace millrace::cuda {

// ---- The order of logits -----------------------------------------------------------------------

// Greater for a greater logit, equal for equal ones (both zeros are), 0 for what cannot be drawn:
// minus infinity and NaNs.
inline constexpr std::uint32_t kNeverDrawn = 0;
inline constexpr std::uint32_t kLowestKey = 1;  // at or below that of every logit that can be drawn
inline constexpr std::uint32_t kInfinityKey = 0xFF800000U;  // of plus infinity

__device__ inline std::uint32_t KeyOf(float logit) {
  if (!(logit > BitsFloat(0xFF800000U))) return kNeverDrawn;
  if (logit == 0.0F) return 0x80000000U;
  const std::uint32_t bits = FloatBits(logit);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
}
// REQUIRES: not kNeverDrawn. A zero comes back as +0: no result depends on its sign, since weights
// and logprobs take the difference to a maximum, and only zeros differ from a zero by zero.
__device__ inline float LogitOf(std::uint32_t key) {
  return BitsFloat((key >> 31) != 0 ? key & 0x7FFFFFFFU : ~key);
}

// A token in the order of choice: the greater comes first; ties go to the lower id.
__device__ inline std::uint64_t Ranked(std::uint32_t key, std::uint32_t token) {
  return (std::uint64_t{key} << 32) | static_cast<std::uint32_t>(~token);
}
__device__ inline std::uint32_t KeyOfRanked(std::uint64_t ranked) {
  return static_cast<std::uint32_t>(ranked >> 32);
}
__device__ inline std::uint32_t TokenOfRanked(std::uint64_t ranked) {
  return ~static_cast<std::uint32_t>(ranked);
}

__device__ inline bool IsFinite(float value) {
  constexpr std::uint32_t kExponent = 0x7F800000U;
  return (FloatBits(value) & kExponent) != kExponent;
}

// ---- Sizes -------------------------------------------------------------------------------------

// Tokens whose maximum is kept together: four for each thread of a warp, one 16-byte load each.
inline constexpr int kGroupTokens = 128;
// Tokens that a block looks through: two groups for each of its eight warps, so that one row
// spreads over 75 blocks at a vocabulary of 151 936.
inline constexpr int kChunkTokens = 2048;
inline constexpr int kChunkThreads = 256;

constexpr int DivideUp(int a, int b) { return (a + b - 1) / b; }
constexpr int GroupsOf(int vocab) { return DivideUp(vocab, kGroupTokens); }
constexpr int ChunksOf(int vocab) { return DivideUp(vocab, kChunkTokens); }
constexpr int SlicesOf(int vocab) { return DivideUp(vocab, static_cast<int>(kSampleSlice)); }

// Blocks that sort whole rows, each with memory of its own: so rare that rows may queue.
inline constexpr int kSortBlocks = 4;

// Larger vocabularies are refused (cudaErrorInvalidValue): a block holds the numbers of all groups.
inline constexpr int kMaxSampleVocab = 1 << 19;

// ---- Scratch memory ----------------------------------------------------------------------------

struct SampleScratchLayout {
  std::size_t groups = 0;     // keys of maxima [2 * max_rows][groups]
  std::size_t best = 0;       // the best of each chunk, ranked [2 * max_rows][chunks]
  std::size_t faults = 0;     // 1: a raw logit is not finite [max_rows][chunks]
  std::size_t sums = 0;       // of slices, doubles [2 * max_rows][slices]
  std::size_t unsettled = 0;  // 1: the whole row must be sorted [2 * max_rows]
  std::size_t sort = 0;       // ranked, [kSortBlocks][2][vocab]
  std::size_t changed = 0;    // logits [max_rows][changed_stride]
  std::size_t changed_stride = 0;
  std::size_t bytes = 0;
};

constexpr SampleScratchLayout SampleScratchLayoutOf(std::int32_t max_rows, std::int32_t vocab) {
  const auto rows = static_cast<std::size_t>(max_rows);
  const auto groups = static_cast<std::size_t>(GroupsOf(vocab));
  const auto chunks = static_cast<std::size_t>(ChunksOf(vocab));
  const auto slices = static_cast<std::size_t>(SlicesOf(vocab));
  std::size_t end = 0;
  const auto take = [&end](std::size_t bytes) {  // each part aligned to 16
    const std::size_t begin = end;
    end = begin + (bytes + 15) / 16 * 16;
    return begin;
  };
  SampleScratchLayout layout;
  layout.groups = take(2 * rows * groups * sizeof(std::uint32_t));
  layout.best = take(2 * rows * chunks * sizeof(std::uint64_t));
  layout.faults = take(rows * chunks * sizeof(std::int32_t));
  layout.sums = take(2 * rows * slices * sizeof(double));
  layout.unsettled = take(2 * rows * sizeof(std::int32_t));
  layout.sort =
      take(std::size_t{2} * kSortBlocks * static_cast<std::size_t>(vocab) * sizeof(std::uint64_t));
  layout.changed_stride = (static_cast<std::size_t>(vocab) + 3) / 4 * 4;
  layout.changed = take(rows * layout.changed_stride * sizeof(float));
  layout.bytes = end;
  return layout;
}

// ---- What a step samples -----------------------------------------------------------------------

// The parameters of LaunchSample, with every place found.
struct SampleStep {
  const float* logits;
  std::int64_t logits_stride;
  int vocab;
  const PackedCounts* counts;
  const PackedPass* passes;
  const PackedChange* changes;
  const std::uint32_t* lists;
  std::uint32_t* groups;
  std::uint64_t* best;
  std::int32_t* faults;
  double* sums;
  std::int32_t* unsettled;
  std::uint64_t* sort;
  float* changed;
  std::int64_t changed_stride;
  SampleResult* results;
  std::int32_t* tokens;
};

__device__ inline const float* RawRow(const SampleStep& step, int row) {
  return step.logits + row * step.logits_stride;
}
__device__ inline float* ChangedRow(const SampleStep& step, int change) {
  return step.changed + change * step.changed_stride;
}
// The logits that a pass looks at.
__device__ inline const float* RowOfPass(const SampleStep& step, const PackedPass& pass) {
  return pass.change < 0 ? RawRow(step, pass.row) : ChangedRow(step, pass.change);
}

// Does the pass need sums of slices, and of which weights?
__device__ inline bool NeedsSums(const PackedPass& pass) {
  return pass.kind == PassKind::kDraw || pass.kind == PassKind::kLogprobs ||
         (pass.kind == PassKind::kDrawTop && pass.top_k == 0);
}
// The best token has weight 1, so min-p of its probability is min-p of weight.
__device__ inline double LeastWeight(const PackedPass& pass) {
  const double least = pass.min_p;
  return least < 1.0 ? least : 1.0;
}
// Sums for a nucleus take all weights (kernels/sampling.cc).
__device__ inline double LeastOfSums(const PackedPass& pass) {
  return pass.kind == PassKind::kDraw ? LeastWeight(pass) : 0.0;
}

template <typename T>
__device__ inline T MaxOfWarp(T value) {
  for (int apart = kWarpSize / 2; apart > 0; apart /= 2) {
    const T other = ShuffleXor(value, apart);
    value = other > value ? other : value;
  }
  return value;
}

// The best token of a pass, ranked, from those of its chunks. A whole warp; all threads get it.
__device__ inline std::uint64_t BestOfRow(const SampleStep& step, const PackedPass& pass) {
  const int chunks = ChunksOf(step.vocab);
  const std::uint64_t* best = step.best + std::int64_t{pass.maxima} * chunks;
  std::uint64_t own = 0;
  for (int i = static_cast<int>(threadIdx.x) % kWarpSize; i < chunks; i += kWarpSize) {
    own = best[i] > own ? best[i] : own;
  }
  return MaxOfWarp(own);
}

__device__ inline SampleWeights WeightsOf(const PackedPass& pass, std::uint64_t best) {
  return {LogitOf(KeyOfRanked(best)), pass.temperature};
}

// The second stage, kernels/cuda/sampling_choose.cu: from maxima and sums to tokens.
cudaError_t LaunchChoose(const SampleStep& step, const SampleShape& shape, bool chained,
                         cudaStream_t stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_SAMPLING_DEVICE_H_
