#include "kernels/cuda/weight_layout.h"

#include <algorithm>
#include <cstring>

#include "kernels/dequantize.h"
#include "kernels/quant_blocks.h"
#include "kernels/unpack_blocks.h"

namespace millrace::cuda {
namespace {

constexpr int kRowChunkBytes = kChunkBytes / kTileRows;  // 32
constexpr int kBlocks32 = kUnitValues / 32;

// Where dword d of a row lies in a chunk.
constexpr int DwordOffset(int row, int d) {
  return 16 * (4 * (row % 8) + d % 4) + 4 * (2 * (d / 4) + row / 8);
}

void ScatterChunks(const void* from, int chunks, int row, std::byte* plane) {
  const auto* bytes = static_cast<const std::byte*>(from);
  for (int c = 0; c < chunks; ++c) {
    for (int d = 0; d < 8; ++d) {
      std::memcpy(plane + c * kChunkBytes + DwordOffset(row, d), bytes + c * kRowChunkBytes + 4 * d,
                  4);
    }
  }
}

void GatherChunks(const std::byte* plane, int chunks, int row, void* to) {
  auto* bytes = static_cast<std::byte*>(to);
  for (int c = 0; c < chunks; ++c) {
    for (int d = 0; d < 8; ++d) {
      std::memcpy(bytes + c * kRowChunkBytes + 4 * d, plane + c * kChunkBytes + DwordOffset(row, d),
                  4);
    }
  }
}

// The parts of a unit that belong to one row.
template <typename Byte>
struct RowParts {
  RowParts(WeightForm form, Byte* unit_in, int row_in)
      : layout(UnitLayoutOf(form)),
        unit(unit_in),
        row(row_in),
        high(unit + layout.high()),
        scales(unit + layout.scales() + row * layout.scale_row_bytes),
        halves(unit + layout.halves() + row * layout.half_row_bytes) {}
  UnitLayout layout;
  Byte* unit;
  int row;
  Byte* high;
  Byte* scales;
  Byte* halves;
};
using PartsOut = RowParts<std::byte>;
using PartsIn = RowParts<const std::byte>;

// ---- The file's blocks of a unit (`count` of them where a unit holds several) to its parts ------

void Put(const BlockQ4_K* block, int, const PartsOut& out) {
  std::memcpy(out.scales, block, 16);
  ScatterChunks(block->q, 4, out.row, out.unit);
}

void Put(const BlockQ5_K* block, int, const PartsOut& out) {
  std::memcpy(out.scales, block, 16);
  ScatterChunks(block->q, 4, out.row, out.unit);
  ScatterChunks(block->high, 1, out.row, out.high);
}

void Put(const BlockQ6_K* block, int, const PartsOut& out) {
  ScatterChunks(block->low, 4, out.row, out.unit);
  ScatterChunks(block->high, 2, out.row, out.high);
  std::memcpy(out.scales, block->scales, 16);
  std::memcpy(out.halves, &block->d, 2);
}

// Nibbles of 8 blocks, two to a chunk.
template <typename Block>
void PutNibbles(const Block* blocks, int count, const PartsOut& out) {
  std::uint8_t q[kBlocks32 * 16] = {};
  for (int b = 0; b < count; ++b) std::memcpy(q + 16 * b, blocks[b].q, 16);
  ScatterChunks(q, 4, out.row, out.unit);
}

void Put(const BlockQ4_0* blocks, int count, const PartsOut& out) {
  PutNibbles(blocks, count, out);
  for (int b = 0; b < count; ++b) std::memcpy(out.scales + 2 * b, &blocks[b].d, 2);
}

void Put(const BlockQ4_1* blocks, int count, const PartsOut& out) {
  PutNibbles(blocks, count, out);
  for (int b = 0; b < count; ++b) std::memcpy(out.scales + 4 * b, &blocks[b].d, 4);  // and m
}

void Unpack(const BlockQ8_0& block, std::int8_t* q) { std::memcpy(q, block.q, 32); }
void Unpack(const BlockIQ4_NL& block, std::int8_t* q) { UnpackValues(block, q); }
void Unpack(const BlockQ5_0& block, std::int8_t* q) {
  std::uint8_t stored[32];
  UnpackValues(block, stored);
  for (int i = 0; i < 32; ++i) q[i] = static_cast<std::int8_t>(stored[i] - 16);
}
void Unpack(const BlockQ5_1& block, std::int8_t* q) {
  std::uint8_t stored[32];
  UnpackValues(block, stored);
  std::memcpy(q, stored, 32);
}

// Types of 32 values as bytes; kHalfBytes: of d, or of d and m, which lie side by side.
template <int kHalfBytes, typename Block>
void PutBytes32(const Block* blocks, int count, const PartsOut& out) {
  std::int8_t q[kUnitValues] = {};
  for (int b = 0; b < count; ++b) {
    Unpack(blocks[b], q + 32 * b);
    std::memcpy(out.scales + kHalfBytes * b, &blocks[b].d, kHalfBytes);
  }
  ScatterChunks(q, 8, out.row, out.unit);
}
void Put(const BlockQ8_0* blocks, int count, const PartsOut& out) {
  PutBytes32<2>(blocks, count, out);
}
void Put(const BlockQ5_0* blocks, int count, const PartsOut& out) {
  PutBytes32<2>(blocks, count, out);
}
void Put(const BlockIQ4_NL* blocks, int count, const PartsOut& out) {
  PutBytes32<2>(blocks, count, out);
}
void Put(const BlockQ5_1* blocks, int count, const PartsOut& out) {
  PutBytes32<4>(blocks, count, out);
}

void Put(const BlockQ2_K* block, int, const PartsOut& out) {
  std::uint8_t q[kUnitValues];
  UnpackValues(*block, q);
  ScatterChunks(q, 8, out.row, out.unit);
  std::memcpy(out.scales, block->scales, 16);
  std::memcpy(out.halves, &block->d, 4);  // and dmin
}

void Put(const BlockQ3_K* block, int, const PartsOut& out) {
  std::uint8_t stored[kUnitValues];
  std::int8_t q[kUnitValues];
  std::int8_t scales[16];
  UnpackValues(*block, stored);
  UnpackScales(*block, scales);
  for (int i = 0; i < kUnitValues; ++i) q[i] = static_cast<std::int8_t>(stored[i] - 4);
  ScatterChunks(q, 8, out.row, out.unit);
  std::memcpy(out.scales, scales, 16);
  std::memcpy(out.halves, &block->d, 2);
}

void Put(const BlockIQ4_XS* block, int, const PartsOut& out) {
  std::int8_t q[kUnitValues];
  std::int8_t scales[8];
  UnpackValues(*block, q);
  UnpackScales(*block, scales);
  ScatterChunks(q, 8, out.row, out.unit);
  for (int s = 0; s < 16; ++s) std::memcpy(out.scales + s, &scales[s / 2], 1);
  std::memcpy(out.halves, &block->d, 2);
}

template <typename Block, int kBlockValues>
void LayOut(WeightForm form, const std::byte* file_rows, std::int64_t rows, std::int64_t k,
            std::byte* out) {
  constexpr std::int64_t kPerUnit = kUnitValues / kBlockValues;
  const std::int64_t blocks = k / kBlockValues;
  const std::int64_t unit_bytes = UnitLayoutOf(form).bytes();
  const std::int64_t tile_bytes = TileBytes(form, k);
  std::memset(out, 0, static_cast<std::size_t>(TileCount(form, rows) * tile_bytes));
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto* row_blocks = reinterpret_cast<const Block*>(file_rows) + row * blocks;
    std::byte* tile = out + row / kTileRows * tile_bytes;
    for (std::int64_t unit = 0; unit < UnitCount(k); ++unit) {
      const std::int64_t left = blocks - unit * kPerUnit;
      Put(row_blocks + unit * kPerUnit, static_cast<int>(std::min(kPerUnit, left)),
          PartsOut(form, tile + unit * unit_bytes, static_cast<int>(row % kTileRows)));
    }
  }
}

// Value i of a group lies with lane i % 16, as its element i / 16. Bits has a value's size.
template <typename Bits>
void LayOutFloats(WeightForm form, const std::byte* file_rows, std::int64_t rows, std::int64_t k,
                  std::byte* out) {
  constexpr std::int64_t kBytes = sizeof(Bits);
  constexpr std::int64_t kPerLane = 16 / kBytes;
  constexpr std::int64_t kGroup = 16 * kPerLane;
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::byte* from = file_rows + row * k * kBytes;
    std::byte* to = out + row * TileBytes(form, k);
    for (std::int64_t begin = 0; begin < k; begin += kGroup) {
      Bits values[kGroup] = {};
      Bits laid_out[kGroup];
      const std::int64_t count = std::min(kGroup, k - begin);
      std::memcpy(values, from + begin * kBytes, static_cast<std::size_t>(count * kBytes));
      for (std::int64_t i = 0; i < kGroup; ++i) laid_out[i % 16 * kPerLane + i / 16] = values[i];
      std::memcpy(to + begin * kBytes, laid_out, sizeof(laid_out));
    }
  }
}

template <int kBytes>
void DequantizeFloats(DType dtype, const std::byte* weights, std::int64_t row, std::int64_t k,
                      float* out) {
  const WeightForm form = FormOf(dtype);
  const std::int64_t group = FloatGroupValues(form);
  for (std::int64_t i = 0; i < k; ++i) {
    const std::int64_t at = i % group;
    DequantizeRow(dtype,
                  weights + row * TileBytes(form, k) + i / group * kFloatGroupBytes +
                      (at % 16 * (16 / kBytes) + at / 16) * kBytes,
                  1, out + i);
  }
}

float HalfAt(const std::byte* at) {
  HalfBits half;
  std::memcpy(&half, at, sizeof(half));
  return HalfToFloat(half);
}

// ---- A row's part of a unit to floats, in the order of operations of kernels/dequantize.cc ------

// Forms that hold the file's blocks give them back.
template <typename Block>
void DequantizeBlock(DType dtype, const Block& block, std::int64_t values, float* out) {
  DequantizeRow(dtype, reinterpret_cast<const std::byte*>(&block), values, out);
}

void DequantizeQ4_K(const PartsIn& in, float* out) {
  BlockQ4_K block;
  std::memcpy(&block, in.scales, 16);
  GatherChunks(in.unit, 4, in.row, block.q);
  DequantizeBlock(DType::kQ4_K, block, kUnitValues, out);
}

void DequantizeQ5_K(const PartsIn& in, float* out) {
  BlockQ5_K block;
  std::memcpy(&block, in.scales, 16);
  GatherChunks(in.unit, 4, in.row, block.q);
  GatherChunks(in.high, 1, in.row, block.high);
  DequantizeBlock(DType::kQ5_K, block, kUnitValues, out);
}

void DequantizeQ6_K(const PartsIn& in, float* out) {
  BlockQ6_K block;
  GatherChunks(in.unit, 4, in.row, block.low);
  GatherChunks(in.high, 2, in.row, block.high);
  std::memcpy(block.scales, in.scales, 16);
  std::memcpy(&block.d, in.halves, 2);
  DequantizeBlock(DType::kQ6_K, block, kUnitValues, out);
}

template <typename Block>
void DequantizeNibbles(DType dtype, int half_bytes, const PartsIn& in, float* out) {
  std::uint8_t q[kBlocks32 * 16];
  GatherChunks(in.unit, 4, in.row, q);
  for (int b = 0; b < kBlocks32; ++b) {
    Block block;
    std::memcpy(&block.d, in.scales + half_bytes * b, static_cast<std::size_t>(half_bytes));
    std::memcpy(block.q, q + 16 * b, 16);
    DequantizeBlock(dtype, block, 32, out + 32 * b);
  }
}

void DequantizeBytes(WeightForm form, const PartsIn& in, float* out) {
  std::int8_t q[kUnitValues];
  GatherChunks(in.unit, 8, in.row, q);
  for (int i = 0; i < kUnitValues; ++i) {
    const auto value = static_cast<float>(q[i]);
    const auto byte = static_cast<std::int8_t>(in.scales[i / 16]);
    switch (form) {
      case WeightForm::kBytes32:
        out[i] = HalfAt(in.scales + i / 32 * 2) * value;
        break;
      case WeightForm::kBytes32Min:
        out[i] = HalfAt(in.scales + i / 32 * 4) * value + HalfAt(in.scales + i / 32 * 4 + 2);
        break;
      case WeightForm::kBytes16:
        out[i] = HalfAt(in.halves) * static_cast<float>(byte) * value;
        break;
      default: {
        const float scale = HalfAt(in.halves) * static_cast<float>(byte & 0x0F);
        const float min = HalfAt(in.halves + 2) * static_cast<float>((byte >> 4) & 0x0F);
        out[i] = scale * value - min;
      }
    }
  }
}

void DequantizeUnit(WeightForm form, const PartsIn& in, float* out) {
  switch (form) {
    case WeightForm::kQ4_K:
      return DequantizeQ4_K(in, out);
    case WeightForm::kQ5_K:
      return DequantizeQ5_K(in, out);
    case WeightForm::kQ6_K:
      return DequantizeQ6_K(in, out);
    case WeightForm::kQ4_0:
      return DequantizeNibbles<BlockQ4_0>(DType::kQ4_0, 2, in, out);
    case WeightForm::kQ4_1:
      return DequantizeNibbles<BlockQ4_1>(DType::kQ4_1, 4, in, out);
    default:
      return DequantizeBytes(form, in, out);
  }
}

}  // namespace

void LayOutWeights(DType dtype, const std::byte* file_rows, std::int64_t rows, std::int64_t k,
                   std::byte* out) {
  const WeightForm form = FormOf(dtype);
  switch (dtype) {
    case DType::kF32:
      return LayOutFloats<std::uint32_t>(form, file_rows, rows, k, out);
    case DType::kF16:
    case DType::kBF16:
      return LayOutFloats<std::uint16_t>(form, file_rows, rows, k, out);
    case DType::kQ8_0:
      return LayOut<BlockQ8_0, 32>(form, file_rows, rows, k, out);
    case DType::kQ4_0:
      return LayOut<BlockQ4_0, 32>(form, file_rows, rows, k, out);
    case DType::kQ4_1:
      return LayOut<BlockQ4_1, 32>(form, file_rows, rows, k, out);
    case DType::kQ5_0:
      return LayOut<BlockQ5_0, 32>(form, file_rows, rows, k, out);
    case DType::kQ5_1:
      return LayOut<BlockQ5_1, 32>(form, file_rows, rows, k, out);
    case DType::kIQ4_NL:
      return LayOut<BlockIQ4_NL, 32>(form, file_rows, rows, k, out);
    case DType::kQ2_K:
      return LayOut<BlockQ2_K, 256>(form, file_rows, rows, k, out);
    case DType::kQ3_K:
      return LayOut<BlockQ3_K, 256>(form, file_rows, rows, k, out);
    case DType::kQ4_K:
      return LayOut<BlockQ4_K, 256>(form, file_rows, rows, k, out);
    case DType::kQ5_K:
      return LayOut<BlockQ5_K, 256>(form, file_rows, rows, k, out);
    case DType::kQ6_K:
      return LayOut<BlockQ6_K, 256>(form, file_rows, rows, k, out);
    case DType::kIQ4_XS:
      return LayOut<BlockIQ4_XS, 256>(form, file_rows, rows, k, out);
  }
}

void DequantizeLaidOutRow(DType dtype, const std::byte* weights, std::int64_t row, std::int64_t k,
                          float* out) {
  const WeightForm form = FormOf(dtype);
  if (form == WeightForm::kF32) return DequantizeFloats<4>(dtype, weights, row, k, out);
  if (!IsQuantised(form)) return DequantizeFloats<2>(dtype, weights, row, k, out);
  const std::byte* unit = weights + row / kTileRows * TileBytes(form, k);
  for (std::int64_t begin = 0; begin < k; begin += kUnitValues) {
    float values[kUnitValues];
    DequantizeUnit(form, PartsIn(form, unit, static_cast<int>(row % kTileRows)), values);
    std::copy_n(values, std::min<std::int64_t>(kUnitValues, k - begin), out + begin);
    unit += UnitLayoutOf(form).bytes();
  }
}

}  // namespace millrace::cuda
