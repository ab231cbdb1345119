// The sum of experts' outputs before a norm, on the (emulated) GPU, against the CPU's scalar level,
// bit for bit. Norms themselves: norm_test.cc.
#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/moe.h"
#include "kernels/cpu/norm.h"
#include "kernels/cuda/norm.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/expect_rows.h"
#include "tests/kernels/float_test_support.h"

namespace millrace::cuda {
namespace {

using millrace::testing::ActivationArrays;
using millrace::testing::DeviceArray;

constexpr float kEps = 1e-6F;

std::vector<float> RandomRows(std::int32_t rows, std::int32_t width, std::mt19937_64* random) {
  return testing::RandomFloats(static_cast<std::size_t>(rows * width), random);
}

struct Case {
  std::int32_t tokens;
  std::int32_t k;
  std::int32_t width;
  std::vector<std::int32_t> row_index;  // empty: none
  std::int32_t padding = 0;             // floats between the rows of x
};

// What experts computed: [tokens][k][width], and their weights, [tokens][k].
struct Experts {
  std::vector<float> rows;
  std::vector<float> weights;
};

Experts RandomExperts(const Case& c, std::mt19937_64* random) {
  return {RandomRows(c.tokens * c.k, c.width, random), RandomRows(c.tokens, c.k, random)};
}

// Row `token` of x, which has c.padding behind each, with its experts.
std::vector<float> CombinedOnCpu(const Case& c, std::int32_t token, const std::vector<float>& x,
                                 const Experts& experts) {
  const auto begin = x.begin() + token * (c.width + c.padding);
  std::vector<float> row(begin, begin + c.width);
  cpu::SelectMoe(cpu::Isa::kScalar)
      .fns.combine(row.data(), experts.rows.data() + token * c.k * c.width, c.width,
                   experts.weights.data() + token * c.k, c.k, c.width, row.data());
  return row;
}

void ExpectCombinesAsTheCpu(const Case& c, const std::vector<float>& x, const Experts& experts) {
  SCOPED_TRACE(std::to_string(c.tokens) + " x " + std::to_string(c.k) + " x " +
               std::to_string(c.width));
  const std::vector<float> weight(static_cast<std::size_t>(c.width), 1.5F);
  const bool indexed = !c.row_index.empty();
  const auto rows = indexed ? static_cast<std::int32_t>(c.row_index.size()) : c.tokens;
  DeviceArray<float> device_x(x);
  DeviceArray<float> device_weight(weight);
  DeviceArray<float> expert_rows(experts.rows);
  DeviceArray<float> expert_weights(experts.weights);
  DeviceArray<std::int32_t> row_index(c.row_index);
  DeviceArray<std::int32_t> num_rows(std::vector<std::int32_t>{rows});
  ActivationArrays out(rows, c.width);
  NormParams params;
  params.x = device_x.data();
  params.x_stride = c.width + c.padding;
  params.weight = device_weight.data();
  params.n = c.width;
  params.eps = kEps;
  if (indexed) params.row_index = row_index.data();
  params.num_rows = num_rows.data();
  params.max_rows = rows + 3;
  params.expert_rows = expert_rows.data();
  params.expert_weights = expert_weights.data();
  params.experts_per_token = c.k;
  params.out = out.rows();
  params.chained = true;
  ASSERT_EQ(LaunchNorm(params, nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);

  std::vector<float> expected_x = x;
  for (std::int32_t r = 0; r < rows; ++r) {
    const std::int32_t token = indexed ? c.row_index[static_cast<std::size_t>(r)] : r;
    std::vector<float> row = CombinedOnCpu(c, token, x, experts);
    if (!indexed) {
      std::copy(row.begin(), row.end(), expected_x.begin() + token * (c.width + c.padding));
    }
    cpu::SelectRmsNorm(cpu::Isa::kScalar).fn(row.data(), weight.data(), c.width, kEps, row.data());
    out.ExpectRow(r, row);
  }
  testing::ExpectSameBits(device_x.Read(), expected_x);
}

TEST(CudaCombine, CombinesInRankOrderAsTheCpuAndKeepsTheSum) {
  std::mt19937_64 random(1);
  for (const std::int32_t width : {1, 3, 4, 33, 512, 516, 2048}) {
    for (const std::int32_t k : {1, 2, 8, 9, 16}) {
      const Case c = {width > 100 ? 2 : 5, k, width, {}};
      ExpectCombinesAsTheCpu(c, RandomRows(c.tokens, width, &random), RandomExperts(c, &random));
    }
  }
}

// The head's rows: some, in any order, one of them twice.
TEST(CudaCombine, LeavesTheResidualAsItIsWhereRowsAreAskedFor) {
  std::mt19937_64 random(2);
  for (const std::int32_t width : {33, 256}) {
    const Case c = {6, 8, width, {5, 0, 2, 2}};
    ExpectCombinesAsTheCpu(c, RandomRows(c.tokens, width, &random), RandomExperts(c, &random));
  }
}

TEST(CudaCombine, TakesRowsAtAnyDistance) {
  std::mt19937_64 random(3);
  for (const std::int32_t padding : {1, 4}) {
    const Case c = {3, 8, 64, {}, padding};
    ExpectCombinesAsTheCpu(c, RandomRows(c.tokens, c.width + padding, &random),
                           RandomExperts(c, &random));
  }
}

TEST(CudaCombine, KeepsAFaultInItsOwnRow) {
  std::mt19937_64 random(4);
  const Case c = {3, 8, 64, {}};
  Experts experts = RandomExperts(c, &random);
  experts.rows[64 * 3 + 5] = testing::kNan;
  experts.rows[64 * 9 + 6] = testing::kInfinity;
  ExpectCombinesAsTheCpu(c, RandomRows(c.tokens, c.width, &random), experts);
}

}  // namespace
}  // namespace millrace::cuda
