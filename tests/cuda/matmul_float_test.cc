// The product of float weights on the (emulated) GPU against the CPU's scalar level, bit for bit.
#include "kernels/cuda/matmul_float.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "tests/cuda/matmul_cases.h"

namespace millrace::cuda {
namespace {

using ::millrace::testing::CheckMatmul;
using ::millrace::testing::MatmulCase;
using ::millrace::testing::MatmulRun;

MatmulRun::Launch Columns(int columns) {
  return [=](const MatmulParams& params) {
    MatmulShape shape;
    shape.kernel = MatmulKernel::kFloat;
    shape.columns = columns;
    return LaunchMatmulFloat(params, shape, nullptr);
  };
}

class CudaMatmulFloat : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, CudaMatmulFloat,
                         ::testing::Values(DType::kF32, DType::kF16, DType::kBF16),
                         testing::TypeName);

TEST_P(CudaMatmulFloat, EqualsTheCpuForEveryNumberOfRows) {
  std::uint32_t seed = 100;
  for (const std::int32_t m : {1, 2, 3, 4, 5, 7, 8, 9, 17}) {
    for (const int columns : {1, 4, 8}) {
      CheckMatmul({.dtypes = {GetParam()}, .n = {37}, .k = 384, .rows = m, .seed = ++seed},
                  Columns(columns));
    }
  }
}

TEST_P(CudaMatmulFloat, EqualsTheCpuForEveryLengthOfRows) {
  std::uint32_t seed = 200;
  for (const std::int64_t k :
       {1, 2, 15, 16, 17, 33, 63, 64, 65, 127, 128, 129, 255, 511, 513, 1000, 2048}) {
    for (const int columns : {1, 4, 8}) {
      CheckMatmul({.dtypes = {GetParam()}, .n = {5}, .k = k, .rows = 3, .seed = ++seed},
                  Columns(columns));
    }
  }
}

// -0 in a lane stays where no step follows, and becomes +0 where a step has other lanes' values.
TEST_P(CudaMatmulFloat, ZerosKeepTheirSignsAsOnTheCpu) {
  for (const std::int64_t k : {16, 17, 64, 72, 80, 144, 160}) {
    for (const int columns : {1, 4}) {
      MatmulRun run({.dtypes = {GetParam()}, .n = {3}, .k = k, .rows = 2, .seed = 300});
      // The smallest of a type times the smallest float is below what a float holds: -0.
      const std::size_t bytes = GetParam() == DType::kF32 ? 4 : 2;
      for (std::int32_t i = 0; i < 3; ++i) {
        for (std::int64_t v = 0; v < k; ++v) {
          const std::uint32_t smallest = 1;
          std::memcpy(run.operands[0].weight_row(0, i) + v * static_cast<std::int64_t>(bytes),
                      &smallest, bytes);
        }
      }
      const float tiny = -std::numeric_limits<float>::denorm_min();
      for (std::int64_t r = 0; r < 4; ++r) {
        run.operands[0].SetActivations(r, std::vector<float>(static_cast<std::size_t>(k), tiny));
      }
      run.Check(Columns(columns));
    }
  }
}

TEST_P(CudaMatmulFloat, MultipliesRowsSortedByExpertAndPairs) {
  for (const int columns : {1, 4, 8}) {
    CheckMatmul({.dtypes = {GetParam(), GetParam()},
                 .n = {33, 4},
                 .k = 80,
                 .rows_of_expert = {0, 1, 15, 0, 16, 17},
                 .gather = true,
                 .seed = 400},
                Columns(columns));
  }
  CheckMatmul({.dtypes = {GetParam()},
               .n = {33},
               .k = 80,
               .rows = 9,
               .experts = 5,
               .rows_per_x = 3,
               .bias = true,
               .residual = true,
               .seed = 401},
              Columns(1));
}

TEST_P(CudaMatmulFloat, ANanInOneRowStaysThere) {
  for (const int columns : {1, 4, 8}) {
    MatmulRun run({.dtypes = {GetParam()}, .n = {21}, .k = 300, .rows = 6, .seed = 500});
    std::vector<float> values(300, 0.5F);
    values[299] = std::numeric_limits<float>::quiet_NaN();
    run.operands[0].SetActivations(1, values);
    values[299] = std::numeric_limits<float>::infinity();
    run.operands[0].SetActivations(4, values);
    run.Check(Columns(columns));
  }
}

TEST(CudaMatmulFloatShapes, RefusesWhatItDoesNotServe) {
  MatmulParams params;
  params.num_matrices = 2;
  params.matrices[0].form = WeightForm::kF32;
  params.matrices[1].form = WeightForm::kF16;
  params.k = 256;
  params.max_rows = 16;
  EXPECT_EQ(Columns(4)(params), cudaErrorInvalidValue);
  params.num_matrices = 1;
  EXPECT_EQ(Columns(2)(params), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace millrace::cuda
