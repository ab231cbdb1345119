#include "kernels/cuda/int8_peak.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace millrace::cuda {
namespace {

// Byte i of a lane's words of A and of B: small and of both signs.
constexpr int kSpread = 7;
constexpr int kMiddle = 3;
constexpr int ByteOfA(int lane, int word, int i) {
  return (5 * lane + 3 * word + i) % kSpread - kMiddle;
}
constexpr int ByteOfB(int lane, int word, int i) {
  return (2 * lane + word + 4 * i) % kSpread - kMiddle;
}

template <typename ByteFn>
__host__ __device__ std::uint32_t Word(ByteFn byte, int lane, int word) {
  std::uint32_t out = 0;
  for (int i = 0; i < 4; ++i) {
    out |= (static_cast<std::uint32_t>(byte(lane, word, i)) & 0xFFU) << (8 * i);
  }
  return out;
}

__global__ void __launch_bounds__(kInt8PeakThreads) Int8PeakKernel(Int8PeakParams params) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  std::uint32_t a[4];
  std::uint32_t b[2];
  for (int i = 0; i < 4; ++i) {
    a[i] = Word([](int l, int w, int n) { return ByteOfA(l, w, n); }, lane, i);
  }
  for (int i = 0; i < 2; ++i) {
    b[i] = Word([](int l, int w, int n) { return ByteOfB(l, w, n); }, lane, i);
  }
  int sums[kInt8PeakChains][4] = {};
  for (std::int32_t round = 0; round < params.rounds; ++round) {
#pragma unroll
    for (auto& sum : sums) MmaS8K32(sum, a, b);
  }
  std::uint32_t total = 0;
  for (const auto& sum : sums) {
    for (const int value : sum) total += static_cast<std::uint32_t>(value);
  }
  params.sums[blockIdx.x * blockDim.x + threadIdx.x] = static_cast<std::int32_t>(total);
}

}  // namespace

std::int32_t Int8PeakSum(int lane, std::int32_t rounds) {
  // The four values of D that a lane holds (kernels/cuda/device.h), from the lanes of A and B.
  std::int64_t product = 0;
  for (int d = 0; d < 4; ++d) {
    const int row = lane / 4 + (d >= 2 ? 8 : 0);
    const int column = 2 * (lane % 4) + d % 2;
    for (int k = 0; k < 32; ++k) {
      const int word = k / 16;  // of each operand's halves of k
      const int from = k % 16 / 4;
      product += ByteOfA(4 * (row % 8) + from, 2 * word + row / 8, k % 4) *
                 ByteOfB(4 * column + from, word, k % 4);
    }
  }
  // As the device's sums wrap.
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(product * kInt8PeakChains) *
                                   static_cast<std::uint32_t>(rounds));
}

cudaError_t LaunchInt8Peak(const Int8PeakParams& params, cudaStream_t stream) {
  if (params.blocks <= 0 || params.rounds < 0) return cudaErrorInvalidValue;
  return Launch(
      Int8PeakKernel,
      {.grid = dim3(static_cast<unsigned>(params.blocks)), .block = dim3(kInt8PeakThreads)}, stream,
      params);
}

// All kernels are compiled for the same devices.
cudaError_t CompiledFor(int* capability) {
  cudaFuncAttributes attributes = {};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, Int8PeakKernel);
  *capability = attributes.ptxVersion;
  return error;
}

}  // namespace millrace::cuda
