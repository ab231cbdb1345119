// A block takes a row. The sum of squares has 16 virtual lanes (docs/numerics.md), so half a warp
// computes it, from shared memory; loads, products and quantisation are everybody's.
#include "kernels/cuda/norm.h"

#include "kernels/cuda/combine.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/lanes16.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/quantize.h"

namespace millrace::cuda {
namespace {

// Eight values of a row of 2 048 for each thread.
constexpr int kNormThreads = 256;

// Shared memory: the row, filled up to whole vectors of 16, then its weights, then the factor of
// all its values.
constexpr int PaddedTo16(int n) { return (n + kLanes16 - 1) / kLanes16 * kLanes16; }
constexpr std::size_t NormSharedBytes(int n) {
  return static_cast<std::size_t>(2 * PaddedTo16(n) + 1) * sizeof(float);
}

// One warp; both of its halves compute the same.
__device__ float SumOfSquares(const float* row, int padded) {
  float sum = 0.0F;
#pragma unroll 8
  for (int i = static_cast<int>(threadIdx.x) % kLanes16; i < padded; i += kLanes16) {
    sum = Fma(row[i], row[i], sum);
  }
  return Sum16(sum);
}

// Fills the row in shared memory, up to whole vectors of 16, with row `from` of x.
__device__ void LoadRow(const NormParams& params, std::int64_t from, float* row) {
  const float* x = params.x + from * params.x_stride;
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < PaddedTo16(params.n); i += kNormThreads) {
    row[i] = i < params.n ? x[i] : 0.0F;
  }
}

// The same with what the row's experts computed added, kValues at a time.
template <int kValues>
__device__ void LoadRowAndExperts(const NormParams& params, std::int64_t from, float* row) {
  float* x = params.x + from * params.x_stride;
  const std::int64_t slot = from * params.experts_per_token;
  const float* experts = params.expert_rows + slot * params.n;
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = kValues * thread; i < params.n; i += kValues * kNormThreads) {
    Values<kValues> value = LoadValues<kValues>(x + i);
    const Values<kValues> sum = CombineRanks<kValues>(
        experts + i, params.n, params.expert_weights + slot, params.experts_per_token);
#pragma unroll
    for (int v = 0; v < kValues; ++v) value.at[v] = value.at[v] + sum.at[v];
    if (params.row_index == nullptr) StoreValues<kValues>(x + i, value);
    StoreValues<kValues>(row + i, value);
  }
  for (int i = params.n + thread; i < PaddedTo16(params.n); i += kNormThreads) row[i] = 0.0F;
}

// kExperts: how many values of experts are added at a time; 0: none are.
template <int kExperts>
__global__ void __launch_bounds__(kNormThreads) NormKernel(NormParams params) {
  const int padded = PaddedTo16(params.n);
  float* row = BlockShared<float>();
  float* weight = row + padded;
  float* shared_factor = weight + padded;
  const int thread = static_cast<int>(threadIdx.x);
  const int r = static_cast<int>(blockIdx.x);
  if (r >= *params.num_rows) {
    AwaitPrevious();
    return;
  }
  // Beside the end of the kernel before.
  for (int i = thread; i < params.n; i += kNormThreads) weight[i] = params.weight[i];
  const std::int64_t from = params.row_index == nullptr ? r : params.row_index[r];
  AwaitPrevious();
  if constexpr (kExperts > 0) {
    LoadRowAndExperts<kExperts>(params, from, row);
  } else {
    LoadRow(params, from, row);
  }
  LetNextBegin();
  SyncBlock();
  if (thread < kWarpSize) {
    const float sum = SumOfSquares(row, padded);
    if (thread == 0) {
      *shared_factor = 1.0F / sqrtf(sum / static_cast<float>(params.n) + params.eps);
    }
  }
  SyncBlock();
  const float factor = *shared_factor;
  for (int i = thread; i < params.n; i += kNormThreads) {
    row[i] = (row[i] * factor) * weight[i];
  }
  SyncBlock();
  WriteActivations(row, 0, params.n, params.n, r, params.out);
}

// Many small blocks: each takes a part of a row.
constexpr int kQuantizeThreads = 128;
constexpr int kQuantizeValues = 1024;  // of a block: a whole number of blocks of any format

__global__ void __launch_bounds__(kQuantizeThreads) QuantizeKernel(QuantizeParams params) {
  AwaitPrevious();
  const int r = static_cast<int>(blockIdx.x);
  if (r >= *params.num_rows) return;
  float* part = BlockShared<float>();
  const int begin = static_cast<int>(blockIdx.y) * kQuantizeValues;
  const int rest = params.n - begin;
  const int count = rest < kQuantizeValues ? rest : kQuantizeValues;
  const float* x = params.x + std::int64_t{r} * params.n + begin;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kQuantizeThreads) part[i] = x[i];
  LetNextBegin();
  SyncBlock();
  WriteActivations(part, begin, count, params.n, r, params.out);
}

}  // namespace

cudaError_t LaunchNorm(const NormParams& params, cudaStream_t stream) {
  const LaunchShape shape = {dim3(static_cast<unsigned>(params.max_rows)), dim3(kNormThreads),
                             NormSharedBytes(params.n), params.chained};
  if (params.expert_rows == nullptr) return Launch(NormKernel<0>, shape, stream, params);
  // In 16 bytes where all rows are aligned to them.
  if (params.n % 4 == 0 && params.x_stride % 4 == 0) {
    return Launch(NormKernel<4>, shape, stream, params);
  }
  return Launch(NormKernel<1>, shape, stream, params);
}

cudaError_t LaunchQuantize(const QuantizeParams& params, cudaStream_t stream) {
  const int parts = (params.n + kQuantizeValues - 1) / kQuantizeValues;
  const LaunchShape shape = {
      dim3(static_cast<unsigned>(params.max_rows), static_cast<unsigned>(parts)),
      dim3(kQuantizeThreads), kQuantizeValues * sizeof(float), params.chained};
  return Launch(QuantizeKernel, shape, stream, params);
}

}  // namespace millrace::cuda
