// RMSNorm, and the exponential function, on the (emulated) GPU against the CPU's scalar level, bit
// for bit.
#include "kernels/cuda/norm.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/exp.h"
#include "kernels/cpu/norm.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/exp.h"
#include "kernels/cuda/launch.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/expect_rows.h"
#include "tests/kernels/float_test_support.h"

namespace millrace::cuda {
namespace {

using testing::ActivationArrays;
using testing::DeviceArray;
using testing::ExpectSameBits;
using testing::kInfinity;
using testing::kNan;
using testing::RandomFloats;

constexpr float kEps = 1e-6F;

std::vector<float> RowOf(const std::vector<float>& rows, std::int64_t row, std::int64_t n) {
  return {rows.begin() + row * n, rows.begin() + (row + 1) * n};
}

std::vector<float> NormOnCpu(std::vector<float> x, const std::vector<float>& weight) {
  cpu::SelectRmsNorm(cpu::Isa::kScalar)
      .fn(x.data(), weight.data(), static_cast<std::int64_t>(x.size()), kEps, x.data());
  return x;
}

struct Options {
  std::vector<std::int32_t> row_index;  // empty: none
  bool chained = true;
};

// Norms `rows` rows of n values of `x` and compares every format, and x itself, with the CPU's.
void ExpectNormOfCpu(std::int32_t rows, std::int32_t n, const std::vector<float>& x,
                     const std::vector<float>& weight, const Options& options = {}) {
  SCOPED_TRACE(std::to_string(rows) + " rows of " + std::to_string(n));
  DeviceArray<float> device_x(x);
  DeviceArray<float> device_weight(weight);
  DeviceArray<std::int32_t> index(options.row_index);
  DeviceArray<std::int32_t> num_rows(std::vector<std::int32_t>{rows});
  constexpr std::int32_t kMore = 2;  // rows of the grid that are not there
  ActivationArrays out(rows + kMore, n);
  NormParams params;
  params.x = device_x.data();
  params.x_stride = n;
  params.weight = device_weight.data();
  params.n = n;
  params.eps = kEps;
  if (!options.row_index.empty()) params.row_index = index.data();
  params.num_rows = num_rows.data();
  params.max_rows = rows + kMore;
  params.out = out.rows();
  params.chained = options.chained;
  ASSERT_EQ(LaunchNorm(params, nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  ASSERT_EQ(cudaGetLastError(), cudaSuccess);

  ExpectSameBits(device_x.Read(), x);
  for (std::int32_t r = 0; r < rows; ++r) {
    const std::int32_t from =
        options.row_index.empty() ? r : options.row_index[static_cast<std::size_t>(r)];
    out.ExpectRow(r, NormOnCpu(RowOf(x, from, n), weight));
  }
  for (std::int32_t r = rows; r < rows + kMore; ++r) out.ExpectUntouched(r);
}

TEST(CudaNorm, GivesTheBitsOfTheCpuInEveryFormat) {
  std::mt19937_64 random(1);
  for (const std::int32_t n : {1, 15, 16, 17, 32, 40, 96, 256, 768, 2048, 2055}) {
    const std::vector<float> weight = RandomFloats(static_cast<std::size_t>(n), &random);
    for (const std::int32_t rows : {1, 5}) {
      ExpectNormOfCpu(rows, n, RandomFloats(static_cast<std::size_t>(rows * n), &random, 3),
                      weight);
    }
  }
}

TEST(CudaNorm, TakesManyRowsAndNone) {
  std::mt19937_64 random(2);
  const std::vector<float> weight = RandomFloats(256, &random);
  for (const std::int32_t rows : {0, 2, 3, 33, 128}) {
    ExpectNormOfCpu(rows, 256, RandomFloats(static_cast<std::size_t>(rows) * 256, &random), weight,
                    {.row_index = {}, .chained = false});
  }
}

TEST(CudaNorm, TakesTheRowsThatAreAskedFor) {
  std::mt19937_64 random(3);
  const std::vector<float> weight = RandomFloats(512, &random);
  const Options options = {.row_index = {6, 0, 3, 3}};
  ExpectNormOfCpu(4, 512, RandomFloats(7 * 512, &random), weight, options);
}

TEST(CudaNorm, CarriesFaultsAndExtremesAsTheCpu) {
  std::mt19937_64 random(5);
  constexpr std::int32_t kN = 512;
  std::vector<float> x = RandomFloats(8 * kN, &random);
  const std::vector<float> weight = RandomFloats(kN, &random);
  std::fill_n(x.begin(), kN, 0.0F);
  std::fill_n(x.begin() + kN, kN, 1e-30F);  // squares are 0
  std::fill_n(x.begin() + 2 * kN, kN, 3e38F);
  x[3 * kN + 100] = kNan;
  x[4 * kN + 511] = kInfinity;
  x[5 * kN] = -kInfinity;
  std::fill_n(x.begin() + 6 * kN, 256, -0.0F);
  ExpectNormOfCpu(8, kN, x, weight);
}

__global__ void ExpKernel(const float* x, int n, float* y) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] = Exp(x[i]);
}

TEST(CudaExp, GivesTheBitsOfTheCpu) {
  std::vector<float> x = {kNan,     kInfinity, -kInfinity, 1e30F, -1e30F, 88.72283F,
                          88.7229F, -87.3365F, -87.33654F, 0.0F,  -0.0F,  1e-30F,
                          -3e38F,   3e38F,     88.0F,      -87.0F};
  constexpr std::uint32_t kStride = 40009;  // a prime, so that all low bits occur
  for (std::uint32_t bits = 0; bits < std::bit_cast<std::uint32_t>(110.0F); bits += kStride) {
    x.push_back(std::bit_cast<float>(bits));
    x.push_back(-std::bit_cast<float>(bits));
  }
  const auto n = static_cast<int>(x.size());
  std::vector<float> expected(x.size());
  cpu::SelectExp(cpu::Isa::kScalar).fn(x.data(), n, expected.data());
  DeviceArray<float> device_x(x);
  DeviceArray<float> y(x.size());
  const LaunchShape shape = {dim3(static_cast<unsigned>((n + 255) / 256)), dim3(256)};
  ASSERT_EQ(Launch(ExpKernel, shape, nullptr, device_x.data(), n, y.data()), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  ExpectSameBits(y.Read(), expected);
}

}  // namespace
}  // namespace millrace::cuda
