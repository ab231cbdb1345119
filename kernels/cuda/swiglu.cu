// A warp computes 256 values of a row, a thread eight of them in four 16-byte loads; the values
// pass through shared memory into the formats that are wanted.
#include "kernels/cuda/swiglu.h"

#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/exp.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/quantize.h"

namespace millrace::cuda {
namespace {

constexpr int kPerWarp = 256;  // a block of the wider format
constexpr int kMaxWarps = 4;   // few, so that the rows of one token spread over the GPU
constexpr int kVector = 4;     // floats in 16 bytes

__device__ float Swiglu(float gate, float up) {
  const float silu = gate / (1.0F + Exp(0.0F - gate));
  return silu * up;
}

__device__ Float4 Swiglu(const Float4& gate, const Float4& up) {
  Float4 out;
#pragma unroll
  for (int i = 0; i < kVector; ++i) out.value[i] = Swiglu(gate.value[i], up.value[i]);
  return out;
}

// Values [begin, begin + kPerWarp) of a row, or those that exist, into `out`. One warp.
template <bool kAligned>
__device__ void SwigluOfWarp(const float* gate, const float* up, int begin, int ffn, float* out) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  if constexpr (kAligned) {
    const int first = begin + kVector * lane;
    const int second = first + kPerWarp / 2;
    Float4 g[2] = {};
    Float4 u[2] = {};
    if (first < ffn) {
      g[0] = *reinterpret_cast<const Float4*>(gate + first);
      u[0] = *reinterpret_cast<const Float4*>(up + first);
    }
    if (second < ffn) {
      g[1] = *reinterpret_cast<const Float4*>(gate + second);
      u[1] = *reinterpret_cast<const Float4*>(up + second);
    }
    reinterpret_cast<Float4*>(out)[lane] = Swiglu(g[0], u[0]);
    reinterpret_cast<Float4*>(out)[kWarpSize + lane] = Swiglu(g[1], u[1]);
  } else {
    for (int i = lane; i < kPerWarp && begin + i < ffn; i += kWarpSize) {
      out[i] = Swiglu(gate[begin + i], up[begin + i]);
    }
  }
}

template <bool kAligned>
__global__ void __launch_bounds__(kMaxWarps* kWarpSize) SwigluKernel(SwigluParams params) {
  AwaitPrevious();
  const std::int64_t row = blockIdx.x;
  const int per_block = static_cast<int>(blockDim.x) / kWarpSize * kPerWarp;
  const int begin = static_cast<int>(blockIdx.y) * per_block;
  if (row >= std::int64_t{*params.num_tokens} * params.rows_per_token) return;
  auto* values = BlockShared<float>();
  const int own = static_cast<int>(threadIdx.x) / kWarpSize * kPerWarp;
  SwigluOfWarp<kAligned>(params.gate + row * params.stride, params.up + row * params.stride,
                         begin + own, params.ffn, values + own);
  LetNextBegin();
  SyncBlock();
  const int left = params.ffn - begin;
  WriteActivations(values, begin, left < per_block ? left : per_block, params.ffn, row, params.out);
}

bool AlignedTo16(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % 16 == 0;
}

}  // namespace

cudaError_t LaunchSwiglu(const SwigluParams& params, cudaStream_t stream) {
  const int warps = std::clamp((params.ffn + kPerWarp - 1) / kPerWarp, 1, kMaxWarps);
  const int per_block = warps * kPerWarp;
  const LaunchShape shape = {dim3(static_cast<unsigned>(params.max_tokens * params.rows_per_token),
                                  static_cast<unsigned>((params.ffn + per_block - 1) / per_block)),
                             dim3(static_cast<unsigned>(warps * kWarpSize)),
                             static_cast<std::size_t>(per_block) * sizeof(float), params.chained};
  const bool aligned = params.ffn % kVector == 0 && params.stride % kVector == 0 &&
                       AlignedTo16(params.gate) && AlignedTo16(params.up);
  if (aligned) return Launch(SwigluKernel<true>, shape, stream, params);
  return Launch(SwigluKernel<false>, shape, stream, params);
}

}  // namespace millrace::cuda
