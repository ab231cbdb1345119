// e^x of the numerics on the device: the operations and constants of kernels/cpu/exp_body.h, which
// states the range and the error, so the same bits. Device code; any thread.
#ifndef MILLRACE_KERNELS_CUDA_EXP_H_
#define MILLRACE_KERNELS_CUDA_EXP_H_

#include "kernels/cuda/device.h"

namespace millrace::cuda {

__device__ inline float Exp(float x) {
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
  constexpr float kShift = 0x1.8p23F;
  const float t = Fma(x, 0x1.715476p0F, kShift);
  const float n = t - kShift;
  float r = Fma(n, -0x1.62e43p-1F, x);
  r = Fma(n, 0x1.05c61p-29F, r);
  float q = 0x1.6a2352p-10F;
  q = Fma(q, r, 0x1.123a6cp-7F);
  q = Fma(q, r, 0x1.5558f4p-5F);
  q = Fma(q, r, 0x1.55549p-3F);
  q = Fma(q, r, 0x1.fffffcp-2F);
  const float e = Fma(q, r * r, r) + 1.0F;
  float y = BitsFloat(FloatBits(e) + (FloatBits(t) << 23));
  y = x < -0x1.5d589ep6F ? 0.0F : y;                   // below the last with a normal result
  y = 0x1.62e42ep6F < x ? BitsFloat(0x7F800000U) : y;  // above the last with a finite result
  return x != x ? x : y;
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_EXP_H_
