// Activations from floats to the rows of kernels/cuda/activations.h, with the numbers of
// kernels/cpu/quantize.h to the bit. Used by every kernel whose result a matrix product reads.
// Device code. Owns nothing.
#ifndef MILLRACE_KERNELS_CUDA_QUANTIZE_H_
#define MILLRACE_KERNELS_CUDA_QUANTIZE_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/activation_rows.h"
#include "kernels/cuda/activations.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/team.h"

namespace millrace::cuda {

struct alignas(16) Float4 {
  float value[4];
};

// The scale of a block and the factor of its values, from the bits of its largest magnitude: for
// floats without a sign the order of the bits is the order of the values, and infinities and NaNs
// come last. A factor of 0 makes every q 0.
struct BlockScale {
  float scale;
  float factor;
};
__device__ inline BlockScale ScaleOf(std::uint32_t max_bits) {
  constexpr std::uint32_t kInfinity = 0x7F800000U;
  if (max_bits >= kInfinity) return {BitsFloat(0x7FC00000U), 0.0F};
  const float max = BitsFloat(max_bits);
  const float factor = 127.0F / max;
  if (FloatBits(factor) >= kInfinity) return {0.0F, 0.0F};  // zeros, or too small to invert
  return {max / 127.0F, factor};
}

// Adding and taking away 1.5 * 2^23 rounds to an integer, ties to even.
__device__ inline int QuantiseOne(float value, float factor) {
  constexpr float kShift = 0x1.8p23F;
  const float rounded = (value * factor + kShift) - kShift;
  const float clamped = rounded > 127.0F ? 127.0F : (rounded < -127.0F ? -127.0F : rounded);
  return factor == 0.0F ? 0 : static_cast<int>(clamped);
}

struct QuantisedWord {
  std::uint32_t word;  // four bytes, the first value lowest
  int sum;
};
__device__ inline QuantisedWord QuantiseFour(const Float4& x, float factor) {
  QuantisedWord out = {0, 0};
  for (int i = 0; i < 4; ++i) {
    const int q = QuantiseOne(x.value[i], factor);
    out.word |= (static_cast<std::uint32_t>(q) & 0xFFU) << (8 * i);
    out.sum += q;
  }
  return out;
}

__device__ inline std::uint32_t MagnitudeBits(const Float4& x) {
  std::uint32_t max = 0;
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t bits = FloatBits(x.value[i]) & 0x7FFFFFFFU;
    max = bits > max ? bits : max;
  }
  return max;
}
// The largest among `lanes` neighbours of a warp (a power of two); all 32 threads.
__device__ inline std::uint32_t MaxAmong(std::uint32_t bits, int lanes) {
  for (int apart = 1; apart < lanes; apart *= 2) {
    const std::uint32_t other = ShuffleXor(bits, apart);
    bits = other > bits ? other : bits;
  }
  return bits;
}

__device__ inline void StoreQuants(std::byte* row, std::int64_t value, std::uint32_t word) {
  *reinterpret_cast<std::uint32_t*>(row + QuantIndex(value)) = word;
}

// 256 values by one warp, thread t those at 4t and at 128 + 4t; all 32 threads.
__device__ inline void QuantiseBlock256(const float* x, std::int64_t block,
                                        const ActivationLayout& layout, std::byte* row) {
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const Float4 part[2] = {reinterpret_cast<const Float4*>(x)[lane],
                          reinterpret_cast<const Float4*>(x)[32 + lane]};
  std::uint32_t max = MagnitudeBits(part[0]);
  const std::uint32_t second = MagnitudeBits(part[1]);
  max = MaxAmong(second > max ? second : max, kWarpSize);
  const BlockScale scale = ScaleOf(max);
  auto* sums = reinterpret_cast<ActivationSums*>(row + layout.sums) + block;
  for (int half = 0; half < 2; ++half) {
    const QuantisedWord q = QuantiseFour(part[half], scale.factor);
    StoreQuants(row, 256 * block + 128 * half + 4 * lane, q.word);
    int sum = q.sum + ShuffleXor(q.sum, 1);
    sum += ShuffleXor(sum, 2);  // of 16
    const int pair = sum + ShuffleXor(sum, 4);
    if (lane % 4 == 0) {
      sums->low[8 * half + lane / 4] = SumLow(sum);
      sums->high[8 * half + lane / 4] = SumHigh(sum);
    }
    if (lane % 8 == 0) {
      sums->pair_low[4 * half + lane / 8] = SumLow(pair);
      sums->pair_high[4 * half + lane / 8] = SumHigh(pair);
    }
  }
  if (lane == 0) reinterpret_cast<float*>(row + layout.scales)[block] = scale.scale;
}

// Up to four blocks of 32 values by one warp, eight threads each; all 32 threads. `values` is how
// many there are, a multiple of 32.
__device__ inline void QuantiseBlocks32(const float* x, std::int64_t values, std::int64_t first,
                                        const ActivationLayout& layout, std::byte* row) {
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const bool mine = 4 * lane < values;
  const Float4 part = mine ? reinterpret_cast<const Float4*>(x)[lane] : Float4{};
  const BlockScale scale = ScaleOf(MaxAmong(MagnitudeBits(part), 8));
  const QuantisedWord q = QuantiseFour(part, scale.factor);
  int sum = q.sum + ShuffleXor(q.sum, 1);
  sum += ShuffleXor(sum, 2);
  sum += ShuffleXor(sum, 4);
  if (!mine) return;
  StoreQuants(row, first + 4 * lane, q.word);
  if (lane % 8 != 0) return;
  const std::int64_t block = (first + 4 * lane) / 32;
  reinterpret_cast<float*>(row + layout.scales)[block] = scale.scale;
  reinterpret_cast<std::int32_t*>(row + layout.sums)[block] = sum;
}

// Writes values [begin, begin + count) of row `index`, k long, in every format that is wanted. x
// [count] is in shared memory, aligned to 16, and was followed by a barrier of the team. All
// threads of the team. REQUIRES: begin, and count unless the part ends the row, are multiples of
// 256; k is a multiple of the formats' blocks.
__device__ inline void WriteActivations(const float* x, std::int64_t begin, std::int64_t count,
                                        std::int64_t k, std::int64_t index,
                                        const ActivationRows& out, const Team& team) {
  const int warp = team.warp();
  const int warps = team.warps();
  if (out.f32 != nullptr) {
    const ActivationLayout layout = ActivationLayoutOf(ActivationFormat::kF32, k);
    auto* row = reinterpret_cast<float*>(out.f32 + index * layout.row_bytes);
    for (std::int64_t i = team.thread; i < count; i += team.threads) row[begin + i] = x[i];
  }
  if (out.q8x32 != nullptr) {
    const ActivationLayout layout = ActivationLayoutOf(ActivationFormat::kQ8x32, k);
    std::byte* row = out.q8x32 + index * layout.row_bytes;
    for (std::int64_t at = std::int64_t{128} * warp; at < count; at += std::int64_t{128} * warps) {
      QuantiseBlocks32(x + at, count - at, begin + at, layout, row);
    }
  }
  if (out.q8x256 != nullptr) {
    const ActivationLayout layout = ActivationLayoutOf(ActivationFormat::kQ8x256, k);
    std::byte* row = out.q8x256 + index * layout.row_bytes;
    for (std::int64_t b = warp; b < count / 256; b += warps) {
      QuantiseBlock256(x + 256 * b, begin / 256 + b, layout, row);
    }
  }
}

// By all threads of the block.
__device__ inline void WriteActivations(const float* x, std::int64_t begin, std::int64_t count,
                                        std::int64_t k, std::int64_t index,
                                        const ActivationRows& out) {
  WriteActivations(x, begin, count, k, index, out, WholeBlock());
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_QUANTIZE_H_
