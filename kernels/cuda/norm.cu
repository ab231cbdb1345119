// A block takes a row.
#include "kernels/cuda/norm.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/norm_row.h"
#include "kernels/cuda/quantize.h"

namespace millrace::cuda {
namespace {

// Eight values of a row of 2 048 for each thread.
constexpr int kNormThreads = 256;

// kValues: floats that a thread loads at once.
template <int kValues>
__global__ void __launch_bounds__(kNormThreads) NormKernel(NormParams params) {
  const Team team = {static_cast<int>(threadIdx.x), kNormThreads};
  const NormSpace space = NormSpaceOf(params.n, 0);
  float* weight = space.row + NormRowFloats(params.n);
  const int r = static_cast<int>(blockIdx.x);
  if (r >= *params.num_rows) {
    AwaitPrevious();
    return;
  }
  // Beside the end of the kernel before.
  for (int i = team.thread; i < params.n; i += kNormThreads) weight[i] = params.weight[i];
  const std::int64_t from = params.row_index == nullptr ? r : params.row_index[r];
  AwaitPrevious();
  LoadNormRow<kValues>(params, from, space.row, team);
  LetNextBegin();
  NormLoadedRow(params, weight, true, space, team);
  WriteActivations(space.row, 0, params.n, params.n, r, params.out, team);
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
                             static_cast<std::size_t>(NormSharedBytes(params.n)), params.chained};
  return Launch(NormInFours(params) ? NormKernel<4> : NormKernel<1>, shape, stream, params);
}

cudaError_t LaunchQuantize(const QuantizeParams& params, cudaStream_t stream) {
  const int parts = (params.n + kQuantizeValues - 1) / kQuantizeValues;
  const LaunchShape shape = {
      dim3(static_cast<unsigned>(params.max_rows), static_cast<unsigned>(parts)),
      dim3(kQuantizeThreads), kQuantizeValues * sizeof(float), params.chained};
  return Launch(QuantizeKernel, shape, stream, params);
}

}  // namespace millrace::cuda
