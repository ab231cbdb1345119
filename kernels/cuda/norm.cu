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

}  // namespace

cudaError_t LaunchNorm(const NormParams& params, cudaStream_t stream) {
  const LaunchShape shape = {dim3(static_cast<unsigned>(params.max_rows)), dim3(kNormThreads),
                             static_cast<std::size_t>(NormSharedBytes(params.n)), params.chained};
  return Launch(NormInFours(params) ? NormKernel<4> : NormKernel<1>, shape, stream, params);
}

}  // namespace millrace::cuda
