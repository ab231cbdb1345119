// SwiGLU of 256 values of a row (kernels/cuda/swiglu.h), by a warp, a thread eight of them in four
// 16-byte loads; the values pass through shared memory into the formats that are wanted. For the
// kernel of its own (swiglu.cu) and for the end of a product (tail_block.h). Device code; all 32
// threads of a warp call together.
#ifndef MILLRACE_KERNELS_CUDA_SWIGLU_ROW_H_
#define MILLRACE_KERNELS_CUDA_SWIGLU_ROW_H_

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/exp.h"
#include "kernels/cuda/quantize.h"
#include "kernels/cuda/swiglu.h"
#include "kernels/cuda/team.h"

namespace millrace::cuda {

__device__ inline float Swiglu(float gate, float up) {
  const float silu = gate / (1.0F + Exp(0.0F - gate));
  return silu * up;
}

__device__ inline Float4 Swiglu(const Float4& gate, const Float4& up) {
  Float4 out;
#pragma unroll
  for (int i = 0; i < 4; ++i) out.value[i] = Swiglu(gate.value[i], up.value[i]);
  return out;
}

// Values [begin, begin + kSwigluValues) of a row, or those that exist, into `out`. One warp.
template <bool kAligned>
__device__ inline void SwigluOfWarp(const float* gate, const float* up, int begin, int ffn,
                                    float* out) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  if constexpr (kAligned) {
    const int first = begin + 4 * lane;
    const int second = first + kSwigluValues / 2;
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
    for (int i = lane; i < kSwigluValues && begin + i < ffn; i += kWarpSize) {
      out[i] = Swiglu(gate[begin + i], up[begin + i]);
    }
  }
}

// The same, and into the row's formats. `values` is the warp's own shared memory, [kSwigluValues],
// aligned to 16.
template <bool kAligned>
__device__ inline void SwigluPart(const SwigluParams& params, std::int64_t row, int begin,
                                  float* values) {
  SwigluOfWarp<kAligned>(params.gate + row * params.stride, params.up + row * params.stride, begin,
                         params.ffn, values);
  LetNextBegin();
  SyncWarp();
  const int left = params.ffn - begin;
  WriteActivations(values, begin, left < kSwigluValues ? left : kSwigluValues, params.ffn, row,
                   params.out, OwnWarp());
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_SWIGLU_ROW_H_
