#include "kernels/cuda/half_rows.h"

#include "kernels/cuda/bfloat16.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace millrace::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kAtOnce = 4;  // floats in 16 bytes

struct alignas(16) Floats {
  float at[kAtOnce];
};
struct alignas(8) Halves {
  std::uint16_t at[kAtOnce];
};

// Values [i, i + kAtOnce) of a row of k floats, zeros from k on. Rows are padded to 16 bytes.
__device__ inline Floats LoadFloats(const float* row, std::int64_t i, std::int64_t k) {
  Floats x = *reinterpret_cast<const Floats*>(row + i);
#pragma unroll
  for (int j = 0; j < kAtOnce; ++j) x.at[j] = i + j < k ? x.at[j] : 0.0F;
  return x;
}

// The power of two for a row whose largest magnitude has these bits, and its inverse.
struct RowScale {
  float factor;
  float scale;
};
__device__ inline RowScale ScaleOfRow(std::uint32_t max_bits) {
  constexpr int kBias = 127;
  constexpr int kTop = 14;      // of the largest magnitude: 2^15 and less round to what F16 holds
  constexpr int kLeast = -126;  // both powers stay normal floats
  if (max_bits >= 0x7F800000U) return {1.0F, 1.0F};
  const int wanted = static_cast<int>(max_bits >> 23) - kBias - kTop;
  const int exponent = wanted > kLeast ? wanted : kLeast;
  return {BitsFloat(static_cast<std::uint32_t>(kBias - exponent) << 23),
          BitsFloat(static_cast<std::uint32_t>(kBias + exponent) << 23)};
}

__device__ inline std::uint32_t Larger(std::uint32_t a, std::uint32_t b) { return a > b ? a : b; }

// The largest magnitude of a row, as bits: for floats without a sign their order is the values',
// and infinities and NaNs come last. Whole in every thread.
__device__ inline std::uint32_t MaxBitsOfRow(const float* row, std::int64_t k) {
  std::uint32_t most = 0;
  for (std::int64_t i = kAtOnce * threadIdx.x; i < k; i += kAtOnce * kThreads) {
    const Floats x = LoadFloats(row, i, k);
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) most = Larger(most, FloatBits(x.at[j]) & 0x7FFFFFFFU);
  }
  for (int apart = kWarpSize / 2; apart > 0; apart /= 2) {
    most = Larger(most, ShuffleXor(most, apart));
  }
  auto* of_warps = BlockShared<std::uint32_t>();
  if (threadIdx.x % kWarpSize == 0) of_warps[threadIdx.x / kWarpSize] = most;
  SyncBlock();
  for (int w = 0; w < kWarps; ++w) most = Larger(most, of_warps[w]);
  return most;
}

// A block takes a row.
template <HalfType kType>
__global__ void __launch_bounds__(kThreads) HalfRowsKernel(HalfRowsParams p) {
  AwaitPrevious();
  LetNextBegin();
  const std::int64_t r = blockIdx.x;
  const auto* row = reinterpret_cast<const float*>(
      p.x + r * ActivationLayoutOf(ActivationFormat::kF32, p.k).row_bytes);
  RowScale scale = {1.0F, 1.0F};
  if constexpr (kType == HalfType::kF16) {
    scale = ScaleOfRow(MaxBitsOfRow(row, p.k));
    if (threadIdx.x == 0) p.scales[r] = scale.scale;
  }
  std::uint16_t* out = p.out + r * HalfStride(p.k);
  for (std::int64_t i = kAtOnce * threadIdx.x; i < p.k; i += kAtOnce * kThreads) {
    const Floats x = LoadFloats(row, i, p.k);
    Halves halves;
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if constexpr (kType == HalfType::kF16) {
        halves.at[j] = FloatToHalf(x.at[j] * scale.factor);
      } else {
        halves.at[j] = FloatToBfloat16(x.at[j]);
      }
    }
    *reinterpret_cast<Halves*>(out + i) = halves;
  }
}

// A block takes some columns of a row; a thread's loads are asked for together.
__global__ void __launch_bounds__(kThreads) FinishProductKernel(FinishProductParams p) {
  AwaitPrevious();
  LetNextBegin();
  const std::int64_t r = blockIdx.x;
  const int first =
      static_cast<int>(blockIdx.y) * kAtOnce * kThreads + static_cast<int>(threadIdx.x);
  float* product = p.product + r * p.stride;
  float* to = p.add_to != nullptr ? p.add_to + r * p.add_stride : product;
  float value[kAtOnce];
  float before[kAtOnce];
#pragma unroll
  for (int j = 0; j < kAtOnce; ++j) {
    const int i = first + j * kThreads;
    value[j] = i < p.n ? product[i] : 0.0F;
    before[j] = i < p.n && p.add_to != nullptr ? to[i] : 0.0F;
  }
  const float scale = p.scales != nullptr ? p.scales[r] : 1.0F;
#pragma unroll
  for (int j = 0; j < kAtOnce; ++j) {
    const int i = first + j * kThreads;
    if (i >= p.n) continue;
    float v = value[j] * scale;
    if (p.bias != nullptr) v = v + p.bias[i];
    to[i] = p.add_to != nullptr ? before[j] + v : v;
  }
}

}  // namespace

cudaError_t LaunchHalfRows(const HalfRowsParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(params.rows));
  shape.block = dim3(kThreads);
  shape.chained = params.chained;
  if (params.type == HalfType::kBF16) {
    return Launch(HalfRowsKernel<HalfType::kBF16>, shape, stream, params);
  }
  shape.shared_bytes = kWarps * sizeof(std::uint32_t);
  return Launch(HalfRowsKernel<HalfType::kF16>, shape, stream, params);
}

cudaError_t LaunchFinishProduct(const FinishProductParams& params, cudaStream_t stream) {
  if (params.rows == 0 || params.n == 0) return cudaSuccess;
  constexpr int kColumns = kAtOnce * kThreads;
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(params.rows),
                    static_cast<unsigned>((params.n + kColumns - 1) / kColumns));
  shape.block = dim3(kThreads);
  shape.chained = params.chained;
  return Launch(FinishProductKernel, shape, stream, params);
}

}  // namespace millrace::cuda
