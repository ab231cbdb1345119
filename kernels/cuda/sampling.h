// Choosing the next tokens on the GPU, with the bits of kernels/sampling.h's SampleToken: double
// arithmetic in the same order, so every feature gives the CPU's tokens.
//
// How it goes: the logits are looked through once by many blocks, which keep the maximum of each
// group of 128 tokens; greedy rows need no more, and a draw from the whole vocabulary adds one pass
// that sums slices. One block a row then chooses. For top-k and top-p it takes the groups whose
// maximum is among the best, sorts what stands in them, and finds its tokens there; the rare rows
// for which that is not enough (thousands of tokens in the nucleus, or all logits equal) are sorted
// as a whole by kernels that have nothing to do otherwise.
//
// Host code; thread-safe. Owns nothing; nothing is allocated, nothing waits.
#ifndef MILLRACE_KERNELS_CUDA_SAMPLING_H_
#define MILLRACE_KERNELS_CUDA_SAMPLING_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/sample_rows.h"

namespace millrace::cuda {

// All pointers are the device's.
struct SampleParams {
  const float* logits = nullptr;  // [rows][vocab], rows logits_stride floats apart
  std::int64_t logits_stride = 0;
  std::int32_t vocab = 0;
  const std::byte* packed = nullptr;  // what PackSampleRows made, for max_rows; aligned to 8
  std::int32_t max_rows = 0;
  // What the kernels are launched for; covers the shape of what is packed, which may be smaller.
  SampleShape shape;
  std::byte* scratch = nullptr;     // SampleScratchBytes(max_rows, vocab), aligned to 16
  SampleResult* results = nullptr;  // [rows]
  // [rows], the chosen tokens once more, for the next step (LaunchTakeTokens); 0 where there is
  // none.
  std::int32_t* tokens = nullptr;
  bool chained = false;  // kernels/cuda/launch.h
};

// Most of it is a copy of the logits of each row that changes them.
std::size_t SampleScratchBytes(std::int32_t max_rows, std::int32_t vocab);

// Two kernels for greedy rows, up to seven with everything.
cudaError_t LaunchSample(const SampleParams& params, cudaStream_t stream);

// Token `index` of a step is what row `row` of the step before sampled.
struct TakenToken {
  std::int32_t index;
  std::int32_t row;
};

// token_ids[taken[i].index] = sampled[taken[i].row] for i < *count.
struct TakeTokensParams {
  const TakenToken* taken = nullptr;    // [*count]
  const std::int32_t* count = nullptr;  // [1], at most max_count
  std::int32_t max_count = 0;
  const std::int32_t* sampled = nullptr;  // SampleParams::tokens of the step before
  std::int32_t* token_ids = nullptr;
  bool chained = false;
};
cudaError_t LaunchTakeTokens(const TakeTokensParams& params, cudaStream_t stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_SAMPLING_H_
