// Quantisation of activations on the (emulated) GPU against the CPU's scalar level, bit for bit.
//
// The kernel is the test's own: those of a model quantise what they have computed, and so never
// rows such as these. Its program has no other kernel that quantises, so that bugs that are planted
// into the header (tests/cuda/mutants.py) reach those of other tests.
#include "kernels/cuda/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/expect_rows.h"
#include "tests/kernels/float_test_support.h"

namespace millrace::cuda {
namespace {

using testing::ActivationArrays;
using testing::DeviceArray;
using testing::kInfinity;
using testing::kNan;
using testing::RandomFloats;

constexpr int kThreads = 128;
constexpr int kValues = 1024;  // of a block: a whole number of blocks of any format

// Rows as they are, which no kernel of a model gives: a block takes a part of one.
__global__ void QuantizeKernel(const float* x, int n, int rows, ActivationRows out) {
  const int r = static_cast<int>(blockIdx.x);
  if (r >= rows) return;
  float* part = BlockShared<float>();
  const int begin = static_cast<int>(blockIdx.y) * kValues;
  const int count = n - begin < kValues ? n - begin : kValues;
  const float* from = x + std::int64_t{r} * n + begin;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) part[i] = from[i];
  SyncBlock();
  WriteActivations(part, begin, count, n, r, out);
}

void ExpectQuantisedAsOnCpu(std::int32_t rows, std::int32_t n, const std::vector<float>& x) {
  SCOPED_TRACE(std::to_string(rows) + " rows of " + std::to_string(n));
  DeviceArray<float> device_x(x);
  ActivationArrays out(rows + 1, n);
  const LaunchShape shape = {
      dim3(static_cast<unsigned>(rows + 1), static_cast<unsigned>((n + kValues - 1) / kValues)),
      dim3(kThreads), kValues * sizeof(float)};
  ASSERT_EQ(Launch(QuantizeKernel, shape, nullptr, device_x.data(), n, rows, out.rows()),
            cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  ASSERT_EQ(cudaGetLastError(), cudaSuccess);
  for (std::int64_t r = 0; r < rows; ++r) {
    out.ExpectRow(r, {x.begin() + r * n, x.begin() + (r + 1) * n});
  }
  out.ExpectUntouched(rows);
}

TEST(CudaQuantize, GivesTheBitsOfTheCpuForRowsOfAnyLength) {
  std::mt19937_64 random(6);
  for (const std::int32_t n : {32, 96, 256, 1024, 1056, 2048, 4096}) {
    const std::vector<float> x = RandomFloats(static_cast<std::size_t>(3 * n), &random, 2);
    ExpectQuantisedAsOnCpu(3, n, x);
  }
}

// Ties, the largest of all, blocks of zeros and of what cannot be inverted, and faults, whose block
// is marked and no other.
TEST(CudaQuantize, KnowsItsEdges) {
  constexpr std::int32_t kN = 512;
  const std::vector<std::vector<float>> heads = {
      {127.0F, 0.5F, 1.5F, 2.5F, -0.5F, -1.5F, -2.5F, 126.5F, -126.5F},
      {std::numeric_limits<float>::max(), -std::numeric_limits<float>::max()},
      {},
      {-0.0F},
      {std::numeric_limits<float>::denorm_min()},
      {-3e-37F},
      {4e-37F},
      {kNan, 1.0F},
      {1.0F, -kNan},
      {kInfinity},
      {-kInfinity},
      {std::nextafter(1.0F, 0.0F), 1.0F}};
  std::vector<float> x;
  for (const std::vector<float>& head : heads) {
    std::vector<float> row(kN, 0.0F);
    std::copy(head.begin(), head.end(), row.begin());
    std::copy(head.begin(), head.end(), row.begin() + 300);
    std::fill(row.begin() + 400, row.end(), 0.25F);
    if (head.empty()) std::fill(row.begin(), row.end(), 0.0F);
    x.insert(x.end(), row.begin(), row.end());
  }
  ExpectQuantisedAsOnCpu(static_cast<std::int32_t>(heads.size()), kN, x);
}

}  // namespace
}  // namespace millrace::cuda
