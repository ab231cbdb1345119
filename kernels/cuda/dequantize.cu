// A warp takes a unit of 16 rows and 256 values with the loads of the products, so that reading is
// what it is there; it writes whole sectors of 32 bytes of eight rows at a time.
#include "kernels/cuda/dequantize.h"

#include "kernels/cuda/bfloat16.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matmul_unit.h"

namespace millrace::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kGroupThreads = kFloatGroupBytes / 16;  // that take a group of a float row
constexpr int kGroups = kThreads / kGroupThreads;

struct alignas(8) FourHalves {
  std::uint16_t at[4];
};

// 16 values of a row: scale * q + shift, in this order of roundings.
struct SubBlock {
  float scale;
  float shift;
};

__device__ inline float MinAt(const std::uint32_t* words, int s) {
  return static_cast<float>(SignedByte(words[s / 4], s % 4));
}

// Half `half` of block b, of the unit's row g + 8 * r.
template <WeightForm kForm>
__device__ inline SubBlock SubBlockOf(const UnitScales<kForm>& scales, int r, int b, int half) {
  constexpr FormTraits kTraits = TraitsOf(kForm);
  SubBlock out = {0.0F, 0.0F};
  if constexpr (kTraits.blocks == 8) {
    out.scale = scales.d[r][b];
    if constexpr (kTraits.mins) out.shift = scales.m[r][b];
  } else {
    const int s = kTraits.scales == 16 ? 2 * b + half : b;
    out.scale = scales.d[r][0] * static_cast<float>(scales.scale[r][s]);
    if constexpr (kTraits.mins) out.shift = -(scales.m[r][0] * MinAt(scales.min[r], s));
  }
  return out;
}

template <WeightForm kForm>
__device__ inline FourHalves Dequantize(std::uint32_t quants, const SubBlock& block) {
  FourHalves out;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    float value = block.scale * static_cast<float>(SignedByte(quants, j));
    // Adding a zero would turn -0 into +0.
    if constexpr (TraitsOf(kForm).mins) value = value + block.shift;
    out.at[j] = FloatToBfloat16(value);
  }
  return out;
}

template <WeightForm kForm>
__global__ void __launch_bounds__(kThreads) DequantizeKernel(DequantizeParams p) {
  const std::int64_t units = UnitCount(p.k);
  const std::int64_t tiles = (p.rows + kTileRows - 1) / kTileRows;
  const std::int64_t item = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpSize;
  const bool is_one = item < tiles * units;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  RawUnit<kForm> raw;
  // Weights do not wait for the kernel before; units lie one after the other, tile after tile.
  if (is_one) {
    const std::int64_t first = p.first_row / kTileRows * units;
    LoadUnit<kForm>(p.w + (first + item) * UnitLayoutOf(kForm).bytes(), lane, &raw);
  }
  AwaitPrevious();
  LetNextBegin();
  if (!is_one) return;

  UnitScales<kForm> scales;
  UnpackUnitScales<kForm>(raw, &scales);
  const int g = lane / 4;
  const int t = lane % 4;
  const std::int64_t stride = HalfStride(p.k);
  const std::int64_t row = item / units * kTileRows + g;
  const std::int64_t column = item % units * kUnitValues + 4 * t;
#pragma unroll
  for (int b = 0; b < kUnitBlocks; ++b) {
    std::uint32_t a[4];
    UnpackBlock<kForm>(raw, b, a);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = i % 2;
      const std::int64_t to = column + 32 * b + 16 * (i / 2);
      if (row + 8 * r >= p.rows || to >= p.k) continue;
      const FourHalves halves = Dequantize<kForm>(a[i], SubBlockOf<kForm>(scales, r, b, i / 2));
      *reinterpret_cast<FourHalves*>(p.out + (row + 8 * r) * stride + to) = halves;
    }
  }
}

// Half a warp takes a group: thread t has the values t, 16 + t, .. of it, two to a word. Neighbours
// exchange words, and then each has pairs of neighbouring values.
__global__ void __launch_bounds__(kThreads) ReorderKernel(DequantizeParams p, std::int64_t groups) {
  const std::int64_t item = std::int64_t{blockIdx.x} * kGroups + threadIdx.x / kGroupThreads;
  const bool is_one = item < groups * p.rows;
  const int t = static_cast<int>(threadIdx.x) % kGroupThreads;
  Bytes16 own = {};
  if (is_one) {
    own = LoadOnce16(p.w + (p.first_row * groups + item) * kFloatGroupBytes + 16 * t);
  }
  AwaitPrevious();
  LetNextBegin();
  const bool odd = t % 2 != 0;
  const std::int64_t stride = HalfStride(p.k);
  std::uint16_t* row = p.out + item / groups * stride;
  const std::int64_t first = item % groups * FloatGroupValues(WeightForm::kF16);
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const std::uint32_t other = ShuffleXor(own.word[w], 1);
    // The even thread of a pair keeps step 2w, the odd one step 2w + 1.
    const std::uint32_t pair =
        odd ? (other >> 16) | (own.word[w] & 0xFFFF0000U) : (own.word[w] & 0xFFFFU) | (other << 16);
    const std::int64_t at = first + kGroupThreads * (2 * w + (odd ? 1 : 0)) + (t & ~1);
    if (is_one && at < stride) *reinterpret_cast<std::uint32_t*>(row + at) = pair;
  }
}

using UnitKernel = void (*)(DequantizeParams);

UnitKernel KernelOf(WeightForm form) {
  switch (form) {
    case WeightForm::kQ4_K:
      return DequantizeKernel<WeightForm::kQ4_K>;
    case WeightForm::kQ5_K:
      return DequantizeKernel<WeightForm::kQ5_K>;
    case WeightForm::kQ6_K:
      return DequantizeKernel<WeightForm::kQ6_K>;
    case WeightForm::kQ4_0:
      return DequantizeKernel<WeightForm::kQ4_0>;
    case WeightForm::kQ4_1:
      return DequantizeKernel<WeightForm::kQ4_1>;
    case WeightForm::kBytes32:
      return DequantizeKernel<WeightForm::kBytes32>;
    case WeightForm::kBytes32Min:
      return DequantizeKernel<WeightForm::kBytes32Min>;
    case WeightForm::kBytes16:
      return DequantizeKernel<WeightForm::kBytes16>;
    case WeightForm::kBytes16Min:
      return DequantizeKernel<WeightForm::kBytes16Min>;
    default:
      return nullptr;
  }
}

LaunchShape ShapeFor(std::int64_t items, int of_block, const DequantizeParams& params) {
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>((items + of_block - 1) / of_block));
  shape.block = dim3(kThreads);
  shape.chained = params.chained;
  return shape;
}

}  // namespace

cudaError_t LaunchDequantize(const DequantizeParams& params, cudaStream_t stream) {
  if (params.form == WeightForm::kF32 || params.first_row % kTileRows != 0) {
    return cudaErrorInvalidValue;
  }
  if (params.rows == 0) return cudaSuccess;
  if (!IsQuantised(params.form)) {
    const std::int64_t groups = TileBytes(params.form, params.k) / kFloatGroupBytes;
    const LaunchShape shape = ShapeFor(groups * params.rows, kGroups, params);
    return Launch(ReorderKernel, shape, stream, params, groups);
  }
  const std::int64_t items = TileCount(params.form, params.rows) * UnitCount(params.k);
  return Launch(KernelOf(params.form), ShapeFor(items, kWarps, params), stream, params);
}

}  // namespace millrace::cuda
