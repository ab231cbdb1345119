// A thread computes four neighbouring values of a row, in 16-byte loads, all ranks' at once; where
// rows are no multiple of four wide, one value.
#include "kernels/cuda/combine.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace millrace::cuda {
namespace {

// Few threads a block, so that one token spreads over several multiprocessors.
constexpr int kThreads = 128;
// Ranks whose values are asked for before the first is used: those of most models.
constexpr int kAhead = 8;

template <int kValues>
struct alignas(kValues * sizeof(float)) Values {
  float at[kValues];
};

template <int kValues>
__device__ Values<kValues> LoadValues(const float* p) {
  return *reinterpret_cast<const Values<kValues>*>(p);
}

// Ranks [first, first + kAhead) of the sum, or as many as there are. The first of all is a product.
template <int kValues>
__device__ void AddRanks(const CombineParams& params, const float* rows, const float* weights,
                         int first, Values<kValues>* sum) {
  Values<kValues> e[kAhead];
  float w[kAhead];
#pragma unroll
  for (int r = 0; r < kAhead; ++r) {
    if (first + r >= params.experts_per_token) continue;
    e[r] = LoadValues<kValues>(rows + std::int64_t{first + r} * params.width);
    w[r] = weights[first + r];
  }
#pragma unroll
  for (int r = 0; r < kAhead; ++r) {
    if (first + r >= params.experts_per_token) continue;
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      sum->at[i] = first + r == 0 ? w[r] * e[r].at[i] : Fma(w[r], e[r].at[i], sum->at[i]);
    }
  }
}

template <int kValues>
__global__ void __launch_bounds__(kThreads) CombineKernel(CombineParams params) {
  AwaitPrevious();
  const int column = kValues * static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  const std::int64_t token = blockIdx.x;
  if (token < *params.num_tokens && column < params.width) {
    const std::int64_t at = token * params.width + column;
    const Values<kValues> x = LoadValues<kValues>(params.x + at);
    const std::int64_t slot = token * params.experts_per_token;
    Values<kValues> sum = {};
    for (int first = 0; first < params.experts_per_token; first += kAhead) {
      AddRanks<kValues>(params, params.rows + slot * params.width + column, params.weights + slot,
                        first, &sum);
    }
    Values<kValues> y;
#pragma unroll
    for (int i = 0; i < kValues; ++i) y.at[i] = x.at[i] + sum.at[i];
    *reinterpret_cast<Values<kValues>*>(params.y + at) = y;
  }
  LetNextBegin();
}

template <int kValues>
__global__ void __launch_bounds__(kThreads) AddKernel(AddParams params) {
  AwaitPrevious();
  const int column = kValues * static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  const std::int64_t token = blockIdx.x;
  if (token < *params.num_tokens && column < params.width) {
    const std::int64_t at = token * params.width + column;
    const Values<kValues> a = LoadValues<kValues>(params.a + at);
    const Values<kValues> b = LoadValues<kValues>(params.b + at);
    Values<kValues> y;
#pragma unroll
    for (int i = 0; i < kValues; ++i) y.at[i] = a.at[i] + b.at[i];
    *reinterpret_cast<Values<kValues>*>(params.y + at) = y;
  }
  LetNextBegin();
}

constexpr int kVector = 4;

LaunchShape ShapeFor(std::int32_t max_tokens, std::int32_t width, bool chained) {
  const int per_block = kThreads * (width % kVector == 0 ? kVector : 1);
  return {dim3(static_cast<unsigned>(max_tokens),
               static_cast<unsigned>((width + per_block - 1) / per_block)),
          dim3(kThreads), 0, chained};
}

}  // namespace

cudaError_t LaunchCombine(const CombineParams& params, cudaStream_t stream) {
  const LaunchShape shape = ShapeFor(params.max_tokens, params.width, params.chained);
  if (params.width % kVector == 0) return Launch(CombineKernel<kVector>, shape, stream, params);
  return Launch(CombineKernel<1>, shape, stream, params);
}

cudaError_t LaunchAdd(const AddParams& params, cudaStream_t stream) {
  const LaunchShape shape = ShapeFor(params.max_tokens, params.width, params.chained);
  if (params.width % kVector == 0) return Launch(AddKernel<kVector>, shape, stream, params);
  return Launch(AddKernel<1>, shape, stream, params);
}

}  // namespace millrace::cuda
