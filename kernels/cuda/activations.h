// Rows of activations as the CUDA kernels keep them: the numbers of kernels/quant_blocks.h, each
// kind together, so that a thread reads what it multiplies in 16 bytes. Whoever quantises writes
// this, the matrix products read it.
//
//   kF32     [k] floats in order
//   kQ8x256  q [K] | scale [K / 256] floats | ActivationSums [K / 256]
//   kQ8x32   q [K] | scale [K / 32] floats  | sum [K / 32] int32
//
// K is k rounded up to kActivationUnit; where a part begins and where the next row does is
// ActivationLayoutOf's. What lies between k and K, and between parts, may hold anything: no result
// depends on it.
//
// q: value i of a row lies at byte QuantIndex(i), which swaps dwords inside 64 values: dword 4s + t
// (values 16s + 4t .. 16s + 4t + 3) lies at 4t + s. So thread t of a group of four finds its words
// of four sub-blocks of 16 side by side, as the fragments of a matrix product want them.
//
// Leaf header, host and device (constexpr); thread-safe.
#ifndef MILLRACE_KERNELS_CUDA_ACTIVATIONS_H_
#define MILLRACE_KERNELS_CUDA_ACTIVATIONS_H_

#include <cstdint>

#include "kernels/dtype.h"

namespace millrace::cuda {

// The values of a step of the products, whatever the type's blocks are.
inline constexpr std::int64_t kActivationUnit = 256;
// Rows and their parts begin at multiples of this, so that 16-byte loads are aligned.
inline constexpr std::int64_t kActivationAlignment = 16;

// Sums of a block of 256, each in two bytes that dp4a and the matrix products take:
//   sum = 64 * high + low,   high = sum >> 6 in [-64, 63], low = sum & 63.
// |sum of 32| <= 32 * 127 = 4 064 < 64 * 64.
struct alignas(16) ActivationSums {
  std::uint8_t pair_low[8];  // of q[32p .. 32p+31] (in the order of values)
  std::int8_t pair_high[8];
  std::uint8_t low[16];  // of q[16s .. 16s+15]
  std::int8_t high[16];
};
static_assert(sizeof(ActivationSums) == 48);

constexpr std::uint8_t SumLow(std::int32_t sum) { return static_cast<std::uint8_t>(sum & 63); }
constexpr std::int8_t SumHigh(std::int32_t sum) { return static_cast<std::int8_t>(sum >> 6); }

// Where value i of a row lies in its q. Values 4w .. 4w+3 stay together in a dword.
constexpr std::int64_t QuantIndex(std::int64_t i) {
  return (i & ~std::int64_t{63}) | ((i & 12) << 2) | ((i & 48) >> 2) | (i & 3);
}

// Byte offsets in a row; q lies at 0, and so do the floats of kF32.
struct ActivationLayout {
  std::int64_t scales = 0;
  std::int64_t sums = 0;
  std::int64_t row_bytes = 0;  // from one row to the next
};

constexpr std::int64_t RoundUp(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// REQUIRES: k is a multiple of 256 (kQ8x256) or of 32 (kQ8x32).
constexpr ActivationLayout ActivationLayoutOf(ActivationFormat format, std::int64_t k) {
  ActivationLayout layout;
  if (format == ActivationFormat::kF32) {
    layout.row_bytes = RoundUp(4 * k, kActivationAlignment);
    return layout;
  }
  const bool wide = format == ActivationFormat::kQ8x256;
  const std::int64_t padded = RoundUp(k, kActivationUnit);
  const std::int64_t blocks = padded / (wide ? 256 : 32);
  layout.scales = padded;
  layout.sums = layout.scales + RoundUp(4 * blocks, kActivationAlignment);
  const std::int64_t sum_bytes = wide ? std::int64_t{sizeof(ActivationSums)} : 4;
  layout.row_bytes = RoundUp(layout.sums + sum_bytes * blocks, kActivationAlignment);
  return layout;
}

static_assert(QuantIndex(0) == 0 && QuantIndex(4) == 16 && QuantIndex(16) == 4);
static_assert(QuantIndex(63) == 63 && QuantIndex(64 + 20) == 64 + 20 && QuantIndex(37) == 25);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_ACTIVATIONS_H_
