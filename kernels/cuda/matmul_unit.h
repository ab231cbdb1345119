// A unit of weights (kernels/cuda/weight_layout.h) in the registers of a warp, and its products
// with eight columns of activations in integers, or with one by dp4a. Device code; all 32 threads
// of a warp call together.
//
// Thread 4g + t of a warp has rows g and g + 8 of the tile: index r is 0 or 1 below. Blocks b are
// 32 values each, 8 in a unit, whatever the type's blocks are.
#ifndef MILLRACE_KERNELS_CUDA_MATMUL_UNIT_H_
#define MILLRACE_KERNELS_CUDA_MATMUL_UNIT_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/activations.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/form_traits.h"
#include "kernels/cuda/weight_layout.h"

namespace millrace::cuda {

inline constexpr int kUnitBlocks = kUnitValues / 32;
inline constexpr std::uint32_t kNibbles = 0x0F0F0F0FU;

// As loaded: so that a unit can be under way while another is multiplied.
template <WeightForm kForm>
struct RawUnit {
  static constexpr UnitLayout kLayout = UnitLayoutOf(kForm);
  static constexpr int kHigh = kLayout.high_chunks;
  static constexpr int kScaleLoads = kLayout.scale_row_bytes / 16;

  Bytes16 values[kLayout.value_chunks];
  Bytes16 high[kHigh > 0 ? kHigh : 1];
  Bytes16 scales[2][kScaleLoads];
  std::uint32_t halves[2];
};

template <WeightForm kForm>
__device__ inline void LoadUnit(const std::byte* unit, int lane, RawUnit<kForm>* raw) {
  constexpr UnitLayout kLayout = UnitLayoutOf(kForm);
  const std::byte* piece = unit + 16 * lane;
#pragma unroll
  for (int c = 0; c < kLayout.value_chunks; ++c) {
    raw->values[c] = LoadOnce16(piece + c * kChunkBytes);
  }
#pragma unroll
  for (int c = 0; c < kLayout.high_chunks; ++c) {
    raw->high[c] = LoadOnce16(piece + kLayout.high() + c * kChunkBytes);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = lane / 4 + 8 * r;
    const std::byte* scales = unit + kLayout.scales() + row * kLayout.scale_row_bytes;
#pragma unroll
    for (int i = 0; i < kLayout.scale_row_bytes / 16; ++i) {
      raw->scales[r][i] = LoadOnce16(scales + 16 * i);
    }
    const std::byte* halves = unit + kLayout.halves() + row * kLayout.half_row_bytes;
    if constexpr (kLayout.half_row_bytes == 2) {
      raw->halves[r] = *reinterpret_cast<const std::uint16_t*>(halves);
    } else if constexpr (kLayout.half_row_bytes == 4) {
      raw->halves[r] = *reinterpret_cast<const std::uint32_t*>(halves);
    }
  }
}

// value - offset in each byte, of values below 2 * offset, a power of two up to 64, as signed
// bytes: adding 128 - offset carries into no other byte, the flip of the sign bits takes off 128.
template <int kOffset>
__device__ inline std::uint32_t TakeOffset(std::uint32_t values) {
  constexpr std::uint32_t kOnes = 0x01010101U;
  return (values + (128U - kOffset) * kOnes) ^ (128U * kOnes);
}

// Block b as a fragment of a product of signed bytes: a[0], a[1] the first 16 values of rows g and
// g + 8, a[2], a[3] the others.
template <WeightForm kForm>
__device__ inline void UnpackBlock(const RawUnit<kForm>& raw, int b, std::uint32_t (&a)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (kForm == WeightForm::kQ4_K) {
      a[i] = (raw.values[b / 2].word[i] >> (4 * (b % 2))) & kNibbles;
    } else if constexpr (kForm == WeightForm::kQ5_K) {
      const std::uint32_t high =
          b < 4 ? raw.high[0].word[i] << (4 - b) : raw.high[0].word[i] >> (b - 4);
      a[i] = ((raw.values[b / 2].word[i] >> (4 * (b % 2))) & kNibbles) | (high & 0x10101010U);
    } else if constexpr (kForm == WeightForm::kQ6_K) {
      // Half b / 4 of the unit: its blocks 0 and 1 are low nibbles, 2 and 3 the high ones.
      const int j = b % 4;
      const std::uint32_t word = raw.values[2 * (b / 4) + j % 2].word[i];
      const std::uint32_t pairs = raw.high[b / 4].word[i];
      const std::uint32_t high = j < 2 ? pairs << (4 - 2 * j) : pairs >> (2 * j - 4);
      a[i] = TakeOffset<32>(((word >> (j < 2 ? 0 : 4)) & kNibbles) | (high & 0x30303030U));
    } else if constexpr (kForm == WeightForm::kQ4_0 || kForm == WeightForm::kQ4_1) {
      const std::uint32_t word = raw.values[b / 2].word[2 * (b % 2) + i % 2];
      a[i] = (word >> (i < 2 ? 0 : 4)) & kNibbles;
      if constexpr (kForm == WeightForm::kQ4_0) a[i] = TakeOffset<8>(a[i]);
    } else {
      a[i] = raw.values[b].word[i];
    }
  }
}

__device__ inline int SignedByte(std::uint32_t word, int i) {
  return static_cast<std::int8_t>(word >> (8 * i));
}

// What multiplies the integers of a unit.
template <WeightForm kForm>
struct UnitScales {
  static constexpr FormTraits kTraits = TraitsOf(kForm);
  static constexpr int kMinWords = kTraits.blocks == 1 && kTraits.mins ? kTraits.scales / 4 : 0;

  int scale[2][kTraits.scales > 0 ? kTraits.scales : 1];  // [r][s]
  std::uint32_t min[2][kMinWords > 0 ? kMinWords : 1];    // [r], four bytes a word
  float d[2][kTraits.blocks];                             // [r][block]
  float m[2][kTraits.mins ? kTraits.blocks : 1];          // [r][block]
};

// The scales and minimums of Q4_K and Q5_K (kernels/quant_blocks.h), four bytes a word.
__device__ inline void UnpackScaleMins(const Bytes16& head, std::uint32_t (&scales)[2],
                                       std::uint32_t (&mins)[2]) {
  constexpr std::uint32_t kLow6 = 0x3F3F3F3FU;
  constexpr std::uint32_t kTop2 = 0x30303030U;
  const std::uint32_t first = head.word[1];
  const std::uint32_t second = head.word[2];
  const std::uint32_t third = head.word[3];
  scales[0] = first & kLow6;
  scales[1] = (third & kNibbles) | ((first >> 2) & kTop2);
  mins[0] = second & kLow6;
  mins[1] = ((third >> 4) & kNibbles) | ((second >> 2) & kTop2);
}

__device__ inline float LowHalf(std::uint32_t word) {
  return HalfToFloat(static_cast<std::uint16_t>(word));
}
__device__ inline float HighHalf(std::uint32_t word) {
  return HalfToFloat(static_cast<std::uint16_t>(word >> 16));
}

template <WeightForm kForm>
__device__ inline void UnpackUnitScales(const RawUnit<kForm>& raw, UnitScales<kForm>* out) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if constexpr (kForm == WeightForm::kQ4_K || kForm == WeightForm::kQ5_K) {
      std::uint32_t scales[2];
      UnpackScaleMins(raw.scales[r][0], scales, out->min[r]);
#pragma unroll
      for (int s = 0; s < 8; ++s) out->scale[r][s] = SignedByte(scales[s / 4], s % 4);
      out->d[r][0] = LowHalf(raw.scales[r][0].word[0]);
      out->m[r][0] = HighHalf(raw.scales[r][0].word[0]);
    } else if constexpr (kForm == WeightForm::kQ6_K || kForm == WeightForm::kBytes16) {
#pragma unroll
      for (int s = 0; s < 16; ++s) {
        out->scale[r][s] = SignedByte(raw.scales[r][0].word[s / 4], s % 4);
      }
      out->d[r][0] = LowHalf(raw.halves[r]);
    } else if constexpr (kForm == WeightForm::kBytes16Min) {
#pragma unroll
      for (int s = 0; s < 16; ++s) {
        out->scale[r][s] = SignedByte(raw.scales[r][0].word[s / 4] & kNibbles, s % 4);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) out->min[r][i] = (raw.scales[r][0].word[i] >> 4) & kNibbles;
      out->d[r][0] = LowHalf(raw.halves[r]);
      out->m[r][0] = HighHalf(raw.halves[r]);
    } else {
#pragma unroll
      for (int b = 0; b < kUnitBlocks; ++b) {
        if constexpr (TraitsOf(kForm).mins) {  // (d, m) of a block in a word
          out->d[r][b] = LowHalf(raw.scales[r][b / 4].word[b % 4]);
          out->m[r][b] = HighHalf(raw.scales[r][b / 4].word[b % 4]);
        } else {
          const std::uint32_t pair = raw.scales[r][0].word[b / 2];
          out->d[r][b] = b % 2 == 0 ? LowHalf(pair) : HighHalf(pair);
        }
      }
    }
  }
}

// ---- Eight columns: thread 4g + t holds column g's words ----------------------------------------

// Words of column g for the blocks 2j and 2j + 1, thread t's, as they lie in a row: x[j].
using ColumnWords = Bytes16[4];

// isum[block][i]: i as in MmaS8K32, rows g (i < 2) and g + 8, columns 2t and 2t + 1.
template <WeightForm kForm>
__device__ inline void MultiplyColumns(const std::uint32_t (&a)[kUnitBlocks][4],
                                       const UnitScales<kForm>& scales, const ColumnWords& x,
                                       int (&isum)[TraitsOf(kForm).blocks][4]) {
  constexpr FormTraits kTraits = TraitsOf(kForm);
  if constexpr (kTraits.blocks == 1) {
#pragma unroll
    for (int i = 0; i < 4; ++i) isum[0][i] = 0;
  }
#pragma unroll
  for (int b = 0; b < kUnitBlocks; ++b) {
    const Bytes16& words = x[b / 2];
    if constexpr (kTraits.scales == 16) {
#pragma unroll
      for (int p = 0; p < 2; ++p) {
        int d[4] = {0, 0, 0, 0};
        const std::uint32_t left[2] = {a[b][2 * p], a[b][2 * p + 1]};
        const std::uint32_t right[1] = {words.word[2 * (b % 2) + p]};
        MmaS8K16(d, left, right);
#pragma unroll
        for (int i = 0; i < 4; ++i) isum[0][i] += scales.scale[i / 2][2 * b + p] * d[i];
      }
    } else {
      int d[4] = {0, 0, 0, 0};
      const std::uint32_t right[2] = {words.word[2 * (b % 2)], words.word[2 * (b % 2) + 1]};
      MmaS8K32(d, a[b], right);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if constexpr (kTraits.scales == 8) {
          isum[0][i] += scales.scale[i / 2][b] * d[i];
        } else {
          isum[b][i] = d[i];
        }
      }
    }
  }
}

// The words of ActivationSums that thread t holds for its column: of the sums of 32 values where
// there are 8 scales, of 16 where there are 16.
struct SumWords {
  std::uint32_t low;
  std::uint32_t high;
};
template <WeightForm kForm>
constexpr int SumsOffset() {
  return TraitsOf(kForm).scales == 8 ? 0 : 16;
}
template <WeightForm kForm>
constexpr int SumsBytes() {
  return TraitsOf(kForm).scales == 8 ? 16 : 32;
}
// `sums` is the SumsBytes at SumsOffset of a column's ActivationSums.
template <WeightForm kForm>
__device__ inline SumWords LoadSumWords(const std::byte* sums, int t) {
  constexpr int kWords = TraitsOf(kForm).scales / 4;
  const auto* words = reinterpret_cast<const std::uint32_t*>(sums);
  return {words[t % kWords], words[kWords + t % kWords]};
}

// The minimums as a fragment of 16 values of k, of which 8 are zeros where there are 8.
template <WeightForm kForm>
__device__ inline void MinFragment(const UnitScales<kForm>& scales, int t, std::uint32_t (&a)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    a[r] = 0;
#pragma unroll
    for (int i = 0; i < UnitScales<kForm>::kMinWords; ++i) a[r] = t == i ? scales.min[r][i] : a[r];
  }
}

// msum[i] = sum over s of min[s] * (sum of s), i as above.
__device__ inline void MultiplyMins(const std::uint32_t (&mins)[2], const SumWords& sums,
                                    int (&msum)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) msum[i] = 0;
  const std::uint32_t high[1] = {sums.high};
  MmaS8K16(msum, mins, high);
#pragma unroll
  for (int i = 0; i < 4; ++i) msum[i] *= 64;
  const std::uint32_t low[1] = {sums.low};
  MmaS8K16(msum, mins, low);
}

// ---- One column by dp4a -------------------------------------------------------------------------

// Each thread multiplies its own words, then the four of a group share their sums out: thread t
// gets the sums of rows (g, g + 8) that it writes.
//
// blocks == 1: isum[0] is row g + 8 * (t % 2)'s. blocks == 8: isum[2 * r + i] is block 2t + i of
// row r.
template <WeightForm kForm>
__device__ inline void MultiplyColumn(const RawUnit<kForm>& raw, const UnitScales<kForm>& scales,
                                      const ColumnWords& x, int t,
                                      int (&isum)[TraitsOf(kForm).blocks == 1 ? 1 : 4]) {
  constexpr FormTraits kTraits = TraitsOf(kForm);
  int own[2][kTraits.blocks];
  if constexpr (kTraits.blocks == 1) own[0][0] = own[1][0] = 0;
#pragma unroll
  for (int b = 0; b < kUnitBlocks; ++b) {
    std::uint32_t a[4];
    UnpackBlock<kForm>(raw, b, a);
    const int first = static_cast<int>(x[b / 2].word[2 * (b % 2)]);
    const int second = static_cast<int>(x[b / 2].word[2 * (b % 2) + 1]);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int low = Dp4a(static_cast<int>(a[r]), first, 0);
      if constexpr (kTraits.scales == 16) {
        const int high = Dp4a(static_cast<int>(a[2 + r]), second, 0);
        own[r][0] += scales.scale[r][2 * b] * low + scales.scale[r][2 * b + 1] * high;
      } else {
        const int sum = Dp4a(static_cast<int>(a[2 + r]), second, low);
        if constexpr (kTraits.scales == 8) {
          own[r][0] += scales.scale[r][b] * sum;
        } else {
          own[r][b] = sum;
        }
      }
    }
  }
  if constexpr (kTraits.blocks == 1) {
    const bool odd = t % 2 != 0;
    const int sum = (odd ? own[1][0] : own[0][0]) + ShuffleXor(odd ? own[0][0] : own[1][0], 1);
    isum[0] = sum + ShuffleXor(sum, 2);
  } else {
    // The upper two threads of the group keep blocks 4..7; then the odd ones the upper two of
    // those.
    const bool upper = t >= 2;
    const bool odd = t % 2 != 0;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int half[4];
#pragma unroll
      for (int b = 0; b < 4; ++b) {
        half[b] =
            (upper ? own[r][4 + b] : own[r][b]) + ShuffleXor(upper ? own[r][b] : own[r][4 + b], 2);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        isum[2 * r + i] =
            (odd ? half[2 + i] : half[i]) + ShuffleXor(odd ? half[i] : half[2 + i], 1);
      }
    }
  }
}

// The sum over s of min[s] * (sum of s) of row g + 8 * r, whole in every thread; `sums` as above.
template <WeightForm kForm>
__device__ inline int MultiplyMinsOfRow(const UnitScales<kForm>& scales, int r,
                                        const Bytes16 (&sums)[2]) {
  constexpr int kWords = UnitScales<kForm>::kMinWords;
  int low = 0;
  int high = 0;
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    const int min = static_cast<int>(r == 0 ? scales.min[0][i] : scales.min[1][i]);
    low = Dp4a(min, static_cast<int>(sums[0].word[i]), low);
    high = Dp4a(min, static_cast<int>(sums[(kWords + i) / 4].word[(kWords + i) % 4]), high);
  }
  return 64 * high + low;
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_MATMUL_UNIT_H_
