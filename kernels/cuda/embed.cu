// A block takes a unit of 256 values of one token's row, a thread a value: bytes wherever they lie,
// since a row is read once a step.
#include "kernels/cuda/embed.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/weight_layout.h"

namespace millrace::cuda {
namespace {

constexpr int kChunkRowBytes = kChunkBytes / kTileRows;  // of one row in a chunk

// Byte `i` of a row's part of a plane of chunks (kernels/cuda/weight_layout.h).
__device__ int PlaneByte(const std::byte* plane, int row, int i) {
  const int dword = i % kChunkRowBytes / 4;
  const int piece = 4 * (row % 8) + dword % 4;
  const int word = 2 * (dword / 4) + row / 8;
  return static_cast<int>(plane[i / kChunkRowBytes * kChunkBytes + 16 * piece + 4 * word + i % 4]);
}

__device__ int Signed(int byte) { return static_cast<std::int8_t>(byte); }

__device__ float HalfAt(const std::byte* at) {
  return HalfToFloat(*reinterpret_cast<const std::uint16_t*>(at));
}

// A row's part of one unit.
struct UnitRow {
  const std::byte* values;
  const std::byte* high;
  const std::byte* scales;  // the row's own
  const std::byte* halves;  // the row's own
  int row;
};

__device__ UnitRow UnitRowAt(const std::byte* unit, const UnitLayout& layout, int row) {
  return {unit, unit + layout.high(), unit + layout.scales() + row * layout.scale_row_bytes,
          unit + layout.halves() + row * layout.half_row_bytes, row};
}

// The nibble of value i where each `half` bytes hold 2 * half values, the low nibbles first.
__device__ int Nibble(const UnitRow& u, int i, int half) {
  const int byte = PlaneByte(u.values, u.row, i / (2 * half) * half + i % half);
  return i / half % 2 == 0 ? byte & 0x0F : byte >> 4;
}

// Scale and minimum of sub-block s of Q4_K and Q5_K; `packed` are twelve bytes.
struct ScaleMin {
  int scale;
  int min;
};
__device__ ScaleMin UnpackScaleMin(const std::byte* packed, int s) {
  const auto at = [packed](int i) { return static_cast<int>(packed[i]); };
  if (s < 4) return {at(s) & 0x3F, at(s + 4) & 0x3F};
  return {(at(s + 4) & 0x0F) | ((at(s - 4) >> 6) << 4), (at(s + 4) >> 4) | ((at(s) >> 6) << 4)};
}

__device__ float WithMins(const UnitRow& u, int i, int q) {
  const ScaleMin packed = UnpackScaleMin(u.scales + 4, i / 32);
  const float scale = HalfAt(u.scales) * static_cast<float>(packed.scale);
  const float min = HalfAt(u.scales + 2) * static_cast<float>(packed.min);
  return scale * static_cast<float>(q) - min;
}
__device__ float WithScale16(const UnitRow& u, int i, int q) {
  const float scale =
      HalfAt(u.halves) * static_cast<float>(Signed(static_cast<int>(u.scales[i / 16])));
  return scale * static_cast<float>(q);
}
__device__ float WithScale32(const UnitRow& u, int i, int q) {
  return HalfAt(u.scales + 2 * (i / 32)) * static_cast<float>(q);
}
__device__ float WithMin32(const UnitRow& u, int i, int q) {
  const std::byte* halves = u.scales + 4 * (i / 32);
  return HalfAt(halves) * static_cast<float>(q) + HalfAt(halves + 2);
}

// Value i of a unit, in the order of operations of kernels/dequantize.cc.
__device__ float UnitValue(WeightForm form, const UnitRow& u, int i) {
  switch (form) {
    case WeightForm::kQ4_K:
      return WithMins(u, i, Nibble(u, i, 32));
    case WeightForm::kQ5_K: {
      const int fifth = (PlaneByte(u.high, u.row, i % 32) >> (i / 32)) & 1;
      return WithMins(u, i, Nibble(u, i, 32) | (fifth << 4));
    }
    case WeightForm::kQ6_K: {
      const int pair = (PlaneByte(u.high, u.row, i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2)) & 3;
      return WithScale16(u, i, (Nibble(u, i, 64) | (pair << 4)) - 32);
    }
    case WeightForm::kQ4_0:
      return WithScale32(u, i, Nibble(u, i, 16) - 8);
    case WeightForm::kQ4_1:
      return WithMin32(u, i, Nibble(u, i, 16));
    case WeightForm::kBytes32:
      return WithScale32(u, i, Signed(PlaneByte(u.values, u.row, i)));
    case WeightForm::kBytes32Min:
      return WithMin32(u, i, Signed(PlaneByte(u.values, u.row, i)));
    case WeightForm::kBytes16:
      return WithScale16(u, i, Signed(PlaneByte(u.values, u.row, i)));
    case WeightForm::kBytes16Min: {
      const int packed = static_cast<int>(u.scales[i / 16]);
      const float scale = HalfAt(u.halves) * static_cast<float>(packed & 0x0F);
      const float min = HalfAt(u.halves + 2) * static_cast<float>(packed >> 4);
      return scale * static_cast<float>(PlaneByte(u.values, u.row, i)) - min;
    }
    default:
      return 0.0F;  // float forms have no units
  }
}

__device__ float FloatValue(WeightForm form, const std::byte* row, int i) {
  const int group = FloatGroupValues(form);
  const int bytes = form == WeightForm::kF32 ? 4 : 2;
  const int at = i % group;
  const std::byte* value = row + i / group * kFloatGroupBytes + at % 16 * 16 + at / 16 * bytes;
  if (form == WeightForm::kF32) return *reinterpret_cast<const float*>(value);
  if (form == WeightForm::kF16) return HalfAt(value);
  return BitsFloat(std::uint32_t{*reinterpret_cast<const std::uint16_t*>(value)} << 16);
}

// How the table lies, looked up by the host: a table of constants by a number that the device gets
// would be a copy in each thread's memory.
struct TableLayout {
  WeightForm form;
  UnitLayout unit;
  std::int64_t tile_bytes;  // of a row for float forms
};

__global__ void __launch_bounds__(kUnitValues) EmbedKernel(EmbedParams p, TableLayout layout) {
  AwaitPrevious();
  const int token = static_cast<int>(blockIdx.x);
  const int unit = static_cast<int>(blockIdx.y);
  const int i = static_cast<int>(threadIdx.x);
  if (token >= *p.num_tokens || unit * kUnitValues + i >= p.n) return;
  const std::int64_t id = p.token_ids[token];
  LetNextBegin();
  float value = 0.0F;
  if (IsQuantised(layout.form)) {
    const std::byte* tile = p.table + id / kTileRows * layout.tile_bytes;
    const int row = static_cast<int>(id % kTileRows);
    value =
        UnitValue(layout.form, UnitRowAt(tile + unit * layout.unit.bytes(), layout.unit, row), i);
  } else {
    value = FloatValue(layout.form, p.table + id * layout.tile_bytes, unit * kUnitValues + i);
  }
  p.x[std::int64_t{token} * p.n + unit * kUnitValues + i] = value;
}

}  // namespace

cudaError_t LaunchEmbed(const EmbedParams& params, cudaStream_t stream) {
  const LaunchShape shape = {
      dim3(static_cast<unsigned>(params.max_tokens), static_cast<unsigned>(UnitCount(params.n))),
      dim3(kUnitValues), 0, params.chained};
  TableLayout layout = {FormOf(params.dtype), {}, TileBytes(FormOf(params.dtype), params.n)};
  if (IsQuantised(layout.form)) layout.unit = UnitLayoutOf(layout.form);
  return Launch(EmbedKernel, shape, stream, params, layout);
}

}  // namespace millrace::cuda
