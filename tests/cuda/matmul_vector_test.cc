// The product for few rows on the (emulated) GPU against the CPU's scalar level, bit for bit.
#include "kernels/cuda/matmul_vector.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "tests/cuda/matmul_cases.h"

namespace millrace::cuda {
namespace {

using ::millrace::testing::CheckMatmul;
using ::millrace::testing::MatmulCase;
using ::millrace::testing::MatmulRun;

struct Split {
  int tiles;
  int splits;
  int pass_units;
};

// With fewer tiles, or splits, where the slots of so many would not fit a block of any device.
MatmulRun::Launch WithShape(int columns, const Split& split) {
  return [=](const MatmulParams& params) {
    constexpr std::int64_t kLargestShared = 96 << 10;
    MatmulShape shape;
    shape.columns = columns;
    shape.tiles = split.tiles;
    shape.splits = split.splits;
    shape.pass_units = split.pass_units;
    while (VectorSharedBytes(params.matrices[0].form, params.k, shape) > kLargestShared) {
      if (shape.tiles > 1) {
        --shape.tiles;
      } else {
        shape.pass_units = shape.splits = shape.splits - 1;
      }
    }
    return LaunchMatmulVector(params, shape, nullptr);
  };
}

// The shape that the plan gives to a device with so many multiprocessors.
MatmulRun::Launch Planned(int columns, int multiprocessors) {
  return [=](const MatmulParams& params) {
    MatmulProblem problem;
    problem.form = params.matrices[0].form;
    problem.k = params.k;
    for (int m = 0; m < params.num_matrices; ++m) {
      problem.tiles += TileCount(problem.form, params.matrices[static_cast<std::size_t>(m)].n);
    }
    problem.max_rows = params.max_rows;
    problem.multiprocessors = multiprocessors;
    return LaunchMatmulVector(params, PlanVector(problem, columns), nullptr);
  };
}

class CudaMatmulVector : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, CudaMatmulVector, ::testing::ValuesIn(testing::QuantisedTypes()),
                         testing::TypeName);

TEST_P(CudaMatmulVector, EqualsTheCpuForEveryNumberOfRows) {
  std::uint32_t seed = 100;
  for (const std::int32_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 17}) {
    const MatmulCase c = {.dtypes = {GetParam()}, .n = {37}, .k = 512, .rows = m, .seed = ++seed};
    if (m <= 3) CheckMatmul(c, Planned(1, 132));
    CheckMatmul(c, Planned(8, 132));
  }
}

TEST_P(CudaMatmulVector, EqualsTheCpuForEverySplitOfK) {
  std::uint32_t seed = 200;
  for (const Split& split : {Split{1, 1, 1}, Split{8, 1, 2}, Split{4, 2, 2}, Split{2, 3, 3},
                             Split{1, 3, 6}, Split{1, 8, 8}, Split{3, 2, 4}}) {
    for (const int columns : {1, 8}) {
      CheckMatmul({.dtypes = {GetParam()}, .n = {70}, .k = 1280, .rows = 3, .seed = ++seed},
                  WithShape(columns, split));
    }
  }
}

TEST_P(CudaMatmulVector, EqualsTheCpuForEveryLengthOfRows) {
  std::vector<std::int64_t> lengths = {256, 768, 2048};
  if (Info(GetParam()).block_values == 32) lengths.insert(lengths.end(), {32, 96, 288, 544});
  std::uint32_t seed = 300;
  for (const std::int64_t k : lengths) {
    const MatmulCase c = {.dtypes = {GetParam()}, .n = {19}, .k = k, .rows = 2, .seed = ++seed};
    CheckMatmul(c, Planned(1, 132));
    CheckMatmul(c, Planned(8, 132));
  }
}

TEST_P(CudaMatmulVector, AddsBiasThenResidualAsTheCpu) {
  for (const bool output : {true, false}) {
    const MatmulCase c = {.dtypes = {GetParam()},
                          .n = {21},
                          .k = 256,
                          .rows = 3,
                          .gather = true,
                          .bias = output,
                          .residual = true,
                          .output = output,
                          .seed = 400};
    CheckMatmul(c, Planned(1, 132));
    CheckMatmul(c, Planned(8, 132));
  }
}

TEST_P(CudaMatmulVector, MultipliesPairsByTheirOwnExperts) {
  CheckMatmul({.dtypes = {GetParam(), GetParam()},
               .n = {33, 17},
               .k = 512,
               .rows = 10,
               .experts = 4,
               .rows_per_x = 5,
               .seed = 500},
              Planned(1, 132));
}

TEST_P(CudaMatmulVector, TheLargestSumsDoNotOverflow) {
  for (const int columns : {1, 8}) {
    const MatmulCase c = {.dtypes = {GetParam()}, .n = {18}, .k = 512, .rows = 2, .seed = 600};
    MatmulRun run(c);
    testing::FillExtremes(&run, c, 4);
    run.Check(Planned(columns, 132));
  }
}

TEST_P(CudaMatmulVector, ANanInOneRowStaysThere) {
  for (const int columns : {1, 8}) {
    MatmulRun run({.dtypes = {GetParam()}, .n = {21}, .k = 512, .rows = 4, .seed = 700});
    std::vector<float> values(512, 0.5F);
    values[300] = std::numeric_limits<float>::quiet_NaN();
    run.operands[0].SetActivations(1, values);
    values[300] = std::numeric_limits<float>::infinity();
    run.operands[0].SetActivations(2, values);
    run.Check(Planned(columns, 132));
  }
}

// q and k of one type, v of another: one launch.
TEST(CudaMatmulVectorMixed, MatricesOfTwoFormsShareALaunch) {
  std::uint32_t seed = 800;
  for (const auto& [first, second] :
       std::vector<std::pair<DType, DType>>{{DType::kQ4_K, DType::kQ6_K},
                                            {DType::kQ6_K, DType::kQ4_K},
                                            {DType::kQ5_K, DType::kQ6_K},
                                            {DType::kQ4_K, DType::kQ5_K}}) {
    for (const int columns : {1, 8}) {
      const MatmulCase c = {.dtypes = {first, first, second},
                            .n = {64, 20, 33},
                            .k = 512,
                            .rows = 3,
                            .bias = true,
                            .seed = ++seed};
      CheckMatmul(c, WithShape(columns, {2, 2, 2}));
    }
  }
}

TEST(CudaMatmulVectorMixed, RefusesWhatItDoesNotServe) {
  MatmulParams params;
  params.num_matrices = 2;
  params.matrices[0].form = WeightForm::kQ4_K;
  params.matrices[1].form = WeightForm::kQ4_0;
  params.k = 256;
  params.max_rows = 1;
  MatmulShape shape;
  EXPECT_FALSE(VectorServes(WeightForm::kQ4_K, WeightForm::kQ4_0));
  EXPECT_FALSE(VectorServes(WeightForm::kF32, WeightForm::kF32));
  EXPECT_EQ(LaunchMatmulVector(params, shape, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace millrace::cuda
