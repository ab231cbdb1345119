// How weights lie in device memory, so that every load of the products is 16 bytes, adjacent to its
// neighbours', and lands in the registers that multiply it.
//
// Quantised matrices are tiles of 16 rows; a tile is units of 256 values in ascending k, whatever
// the type's blocks are (k is padded to whole units, rows to whole tiles, with zeros). A unit is
//   values  chunks of 512 bytes: 32 bytes of each of the 16 rows
//   high    chunks of the types' high bits, in the same order
//   scales  [16 rows][scale_row_bytes]
//   halves  [16 rows][half_row_bytes]
// In a chunk the dword d (0..7) of row r lies at 16-byte piece 4 * (r % 8) + d % 4, word
// 2 * (d / 4) + r / 8: thread 4g + t of a warp loads piece 4g + t and has its fragment of a matrix
// product (kernels/cuda/device.h, MmaS8K32) of rows g and g + 8.
//
// Types of which there are few files are unpacked to bytes when they are laid out; the integers,
// and so the results, are the file's (docs/numerics.md). Float matrices keep their rows, padded to
// whole groups of 16 lanes of 16 bytes: lane l of a group holds the values l, 16 + l, 32 + l, ..
// that the numerics give to it. Vectors (norms, biases) are not laid out: they stay floats in
// order.
//
// Host code, but for the constexpr part, which kernels share. Thread-safe (pure).
#ifndef MILLRACE_KERNELS_CUDA_WEIGHT_LAYOUT_H_
#define MILLRACE_KERNELS_CUDA_WEIGHT_LAYOUT_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace millrace::cuda {

inline constexpr int kTileRows = 16;
inline constexpr int kUnitValues = 256;
inline constexpr int kChunkBytes = 512;

enum class WeightForm : std::uint8_t {
  kQ4_K,        // scales: the block's first 16 bytes (d, dmin, 12 packed)
  kQ5_K,        // the same; high: the fifth bits
  kQ6_K,        // scales: 16 int8; high: the pairs; halves: d
  kQ4_0,        // a chunk is two blocks; scales: d of 8 blocks
  kQ4_1,        // scales: (d, m) of 8 blocks
  kBytes32,     // Q8_0, and Q5_0 and IQ4_NL unpacked: int8; scales: d of 8 blocks
  kBytes32Min,  // Q5_1 unpacked; scales: (d, m) of 8 blocks
  kBytes16,     // Q3_K, IQ4_XS unpacked; scales: int8 for each 16 values; halves: d
  kBytes16Min,  // Q2_K unpacked; scales: (scale, min << 4) for each 16 values; halves: d, dmin
  kF32,
  kF16,
  kBF16,
};
inline constexpr int kQuantisedForms = 9;

constexpr WeightForm FormOf(DType dtype) {
  switch (dtype) {
    case DType::kQ4_K:
      return WeightForm::kQ4_K;
    case DType::kQ5_K:
      return WeightForm::kQ5_K;
    case DType::kQ6_K:
      return WeightForm::kQ6_K;
    case DType::kQ4_0:
      return WeightForm::kQ4_0;
    case DType::kQ4_1:
      return WeightForm::kQ4_1;
    case DType::kQ8_0:
    case DType::kQ5_0:
    case DType::kIQ4_NL:
      return WeightForm::kBytes32;
    case DType::kQ5_1:
      return WeightForm::kBytes32Min;
    case DType::kQ3_K:
    case DType::kIQ4_XS:
      return WeightForm::kBytes16;
    case DType::kQ2_K:
      return WeightForm::kBytes16Min;
    case DType::kF16:
      return WeightForm::kF16;
    case DType::kBF16:
      return WeightForm::kBF16;
    case DType::kF32:
      break;
  }
  return WeightForm::kF32;
}

// The parts of a unit.
struct UnitLayout {
  int value_chunks;
  int high_chunks;
  int scale_row_bytes;
  int half_row_bytes;

  constexpr int high() const { return kChunkBytes * value_chunks; }
  constexpr int scales() const { return high() + kChunkBytes * high_chunks; }
  constexpr int halves() const { return scales() + kTileRows * scale_row_bytes; }
  constexpr int bytes() const { return halves() + kTileRows * half_row_bytes; }
};

// REQUIRES: a quantised form.
constexpr UnitLayout UnitLayoutOf(WeightForm form) {
  constexpr std::array<UnitLayout, kQuantisedForms> kLayouts = {{
      {4, 0, 16, 0},  // kQ4_K
      {4, 1, 16, 0},  // kQ5_K
      {4, 2, 16, 2},  // kQ6_K
      {4, 0, 16, 0},  // kQ4_0
      {4, 0, 32, 0},  // kQ4_1
      {8, 0, 16, 0},  // kBytes32
      {8, 0, 32, 0},  // kBytes32Min
      {8, 0, 16, 2},  // kBytes16
      {8, 0, 16, 4},  // kBytes16Min
  }};
  return kLayouts[static_cast<std::size_t>(form)];
}
// The native forms are no larger than the file's.
static_assert(UnitLayoutOf(WeightForm::kQ4_K).bytes() == kTileRows * 144);
static_assert(UnitLayoutOf(WeightForm::kQ5_K).bytes() == kTileRows * 176);
static_assert(UnitLayoutOf(WeightForm::kQ6_K).bytes() == kTileRows * 210);
static_assert(UnitLayoutOf(WeightForm::kQ4_0).bytes() == kTileRows * 8 * 18);
static_assert(UnitLayoutOf(WeightForm::kQ4_1).bytes() == kTileRows * 8 * 20);
static_assert(UnitLayoutOf(WeightForm::kBytes32).bytes() == kTileRows * 8 * 34);

constexpr bool IsQuantised(WeightForm form) { return static_cast<int>(form) < kQuantisedForms; }

// Values of a group of a float row: 16 lanes of 16 bytes. REQUIRES: a float form.
constexpr int FloatGroupValues(WeightForm form) { return form == WeightForm::kF32 ? 64 : 128; }
inline constexpr int kFloatGroupBytes = 256;

constexpr std::int64_t UnitCount(std::int64_t k) { return (k + kUnitValues - 1) / kUnitValues; }

// Bytes of a tile (quantised) or a row (float) of k values.
constexpr std::int64_t TileBytes(WeightForm form, std::int64_t k) {
  if (IsQuantised(form)) return UnitCount(k) * UnitLayoutOf(form).bytes();
  const int group = FloatGroupValues(form);
  return (k + group - 1) / group * kFloatGroupBytes;
}

constexpr std::int64_t TileCount(WeightForm form, std::int64_t rows) {
  return IsQuantised(form) ? (rows + kTileRows - 1) / kTileRows : rows;
}

// Bytes of a matrix; experts lie one after the other, each so many bytes. A multiple of 32.
constexpr std::int64_t LaidOutBytes(DType dtype, std::int64_t rows, std::int64_t k) {
  return TileCount(FormOf(dtype), rows) * TileBytes(FormOf(dtype), k);
}

// Lays out `rows` rows of a file, one after the other. A matrix may be laid out in parts that begin
// at multiples of kTileRows rows: part p goes to out + LaidOutBytes(dtype, rows before it, k).
// REQUIRES: k is a multiple of the type's block_values; out is LaidOutBytes(dtype, rows, k).
void LayOutWeights(DType dtype, const std::byte* file_rows, std::int64_t rows, std::int64_t k,
                   std::byte* out);

// Row `row` of a matrix that was laid out, as floats, with the bits of DequantizeRow; out is [k].
void DequantizeLaidOutRow(DType dtype, const std::byte* weights, std::int64_t row, std::int64_t k,
                          float* out);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_WEIGHT_LAYOUT_H_
