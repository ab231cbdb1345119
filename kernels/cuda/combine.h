// The outputs of a token's experts by their weights: to the bit the sum of kernels/cpu/moe.h
// (combine), before the residual is added to it. Device code. Owns nothing.
#ifndef MILLRACE_KERNELS_CUDA_COMBINE_H_
#define MILLRACE_KERNELS_CUDA_COMBINE_H_

#include <cstdint>

#include "kernels/cuda/device.h"

namespace millrace::cuda {

// Ranks whose values are asked for before the first is used: those of most models.
inline constexpr int kCombineAhead = 8;

// Neighbouring floats that a thread loads at once.
template <int kValues>
struct alignas(kValues * sizeof(float)) Values {
  float at[kValues];
};

template <int kValues>
__device__ inline Values<kValues> LoadValues(const float* p) {
  return *reinterpret_cast<const Values<kValues>*>(p);
}
template <int kValues>
__device__ inline void StoreValues(float* p, const Values<kValues>& values) {
  *reinterpret_cast<Values<kValues>*>(p) = values;
}

// Ranks [first, first + kCombineAhead) of the sum, or as many of the `ranks` as there are; rank r's
// values begin at rows + r * width. The first of all is a product.
template <int kValues>
__device__ inline void AddRanks(const float* rows, std::int64_t width, const float* weights,
                                int ranks, int first, Values<kValues>* sum) {
  Values<kValues> e[kCombineAhead];
  float w[kCombineAhead];
#pragma unroll
  for (int r = 0; r < kCombineAhead; ++r) {
    if (first + r >= ranks) continue;
    e[r] = LoadValues<kValues>(rows + std::int64_t{first + r} * width);
    w[r] = weights[first + r];
  }
#pragma unroll
  for (int r = 0; r < kCombineAhead; ++r) {
    if (first + r >= ranks) continue;
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      sum->at[i] = first + r == 0 ? w[r] * e[r].at[i] : Fma(w[r], e[r].at[i], sum->at[i]);
    }
  }
}

// fma(w[K-1], e[K-1], ... fma(w[1], e[1], w[0] * e[0])) of all K = `ranks`, at least one.
template <int kValues>
__device__ inline Values<kValues> CombineRanks(const float* rows, std::int64_t width,
                                               const float* weights, int ranks) {
  Values<kValues> sum = {};
  for (int first = 0; first < ranks; first += kCombineAhead) {
    AddRanks<kValues>(rows, width, weights, ranks, first, &sum);
  }
  return sum;
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_COMBINE_H_
