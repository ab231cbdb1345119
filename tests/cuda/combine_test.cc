// Combining experts' outputs, and sums of rows, on the (emulated) GPU against the CPU's scalar
// level, bit for bit.
#include "kernels/cuda/combine.h"

#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/moe.h"
#include "tests/cuda/device_array.h"
#include "tests/kernels/float_test_support.h"

namespace millrace::cuda {
namespace {

using millrace::testing::DeviceArray;

const cpu::MoeFns& Scalar() { return cpu::SelectMoe(cpu::Isa::kScalar).fns; }

std::vector<float> RandomRows(std::int32_t rows, std::int32_t width, std::mt19937_64* random) {
  return testing::RandomFloats(static_cast<std::size_t>(rows * width), random);
}

void ExpectCombinesAsTheCpu(std::int32_t tokens, std::int32_t k, std::int32_t width,
                            std::vector<float> x, const std::vector<float>& rows,
                            const std::vector<float>& weights) {
  SCOPED_TRACE(std::to_string(tokens) + " x " + std::to_string(k) + " x " + std::to_string(width));
  DeviceArray<float> device_x(x);
  DeviceArray<float> device_rows(rows);
  DeviceArray<float> device_weights(weights);
  DeviceArray<std::int32_t> num_tokens(std::vector<std::int32_t>{tokens});
  CombineParams params;
  params.x = device_x.data();
  params.rows = device_rows.data();
  params.weights = device_weights.data();
  params.num_tokens = num_tokens.data();
  params.max_tokens = tokens + 3;
  params.experts_per_token = k;
  params.width = width;
  params.y = device_x.data();
  params.chained = true;
  ASSERT_EQ(LaunchCombine(params, nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (std::int32_t t = 0; t < tokens; ++t) {
    float* row = x.data() + t * width;
    Scalar().combine(row, rows.data() + t * k * width, width, weights.data() + t * k, k, width,
                     row);
  }
  testing::ExpectSameBits(device_x.Read(), x);
}

TEST(CudaCombine, CombinesInRankOrderAsTheCpu) {
  std::mt19937_64 random(1);
  for (const std::int32_t width : {1, 3, 4, 33, 512, 516, 2048}) {
    for (const std::int32_t k : {1, 2, 8, 9, 16}) {
      const std::int32_t tokens = width > 100 ? 2 : 5;
      const std::vector<float> x = RandomRows(tokens, width, &random);
      const std::vector<float> rows = RandomRows(tokens * k, width, &random);
      ExpectCombinesAsTheCpu(tokens, k, width, x, rows, RandomRows(tokens, k, &random));
    }
  }
}

TEST(CudaCombine, KeepsAFaultInItsOwnValue) {
  std::mt19937_64 random(2);
  std::vector<float> rows = RandomRows(2 * 8, 64, &random);
  rows[64 * 3 + 5] = testing::kNan;
  rows[64 * 9 + 6] = testing::kInfinity;
  ExpectCombinesAsTheCpu(2, 8, 64, RandomRows(2, 64, &random), rows, RandomRows(2, 8, &random));
}

TEST(CudaCombine, AddsRowsAsTheCpu) {
  std::mt19937_64 random(3);
  for (const std::int32_t width : {1, 37, 512, 2048}) {
    constexpr std::int32_t kTokens = 3;
    SCOPED_TRACE(width);
    std::vector<float> a = RandomRows(kTokens, width, &random);
    const std::vector<float> b = RandomRows(kTokens, width, &random);
    DeviceArray<float> device_a(a);
    DeviceArray<float> device_b(b);
    DeviceArray<std::int32_t> num_tokens(std::vector<std::int32_t>{kTokens});
    AddParams params;
    params.a = device_a.data();
    params.b = device_b.data();
    params.num_tokens = num_tokens.data();
    params.max_tokens = kTokens + 1;
    params.width = width;
    params.y = device_a.data();
    params.chained = true;
    ASSERT_EQ(LaunchAdd(params, nullptr), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    Scalar().add(a.data(), b.data(), kTokens * width, a.data());
    testing::ExpectSameBits(device_a.Read(), a);
  }
}

}  // namespace
}  // namespace millrace::cuda
