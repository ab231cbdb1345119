// A warp computes 256 values of a row.
#include "kernels/cuda/swiglu.h"

#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/swiglu_row.h"

namespace millrace::cuda {
namespace {

constexpr int kMaxWarps = 4;  // few, so that the rows of one token spread over the GPU

template <bool kAligned>
__global__ void __launch_bounds__(kMaxWarps* kWarpSize) SwigluKernel(SwigluParams params) {
  AwaitPrevious();
  const std::int64_t row = blockIdx.x;
  if (row >= std::int64_t{*params.num_tokens} * params.rows_per_token) return;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int part = static_cast<int>(blockIdx.y * blockDim.x) / kWarpSize + warp;
  const int begin = part * kSwigluValues;
  if (begin >= params.ffn) return;  // the whole warp
  SwigluPart<kAligned>(params, row, begin, BlockShared<float>() + warp * kSwigluValues);
}

}  // namespace

cudaError_t LaunchSwiglu(const SwigluParams& params, cudaStream_t stream) {
  const int parts = (params.ffn + kSwigluValues - 1) / kSwigluValues;
  const int warps = std::clamp(parts, 1, kMaxWarps);
  const LaunchShape shape = {dim3(static_cast<unsigned>(params.max_tokens * params.rows_per_token),
                                  static_cast<unsigned>((parts + warps - 1) / warps)),
                             dim3(static_cast<unsigned>(warps * kWarpSize)),
                             static_cast<std::size_t>(warps * kSwigluValues) * sizeof(float),
                             params.chained};
  return Launch(SwigluInFours(params) ? SwigluKernel<true> : SwigluKernel<false>, shape, stream,
                params);
}

}  // namespace millrace::cuda
