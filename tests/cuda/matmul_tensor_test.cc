// The product for many rows on the (emulated) GPU against the CPU's scalar level, bit for bit.
#include "kernels/cuda/matmul_tensor.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "tests/cuda/matmul_cases.h"

namespace millrace::cuda {
namespace {

using ::millrace::testing::CheckMatmul;
using ::millrace::testing::MatmulCase;
using ::millrace::testing::MatmulRun;

MatmulRun::Launch Wide(int columns) {
  return [=](const MatmulParams& params) {
    MatmulShape shape;
    shape.kernel = MatmulKernel::kTensor;
    shape.columns = columns;
    shape.tiles = columns == 64 ? 8 : 4;
    return LaunchMatmulTensor(params, shape, nullptr);
  };
}

class CudaMatmulTensor : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, CudaMatmulTensor, ::testing::ValuesIn(testing::QuantisedTypes()),
                         testing::TypeName);

TEST_P(CudaMatmulTensor, EqualsTheCpuForEveryNumberOfRows) {
  std::uint32_t seed = 100;
  for (const std::int32_t m : {1, 2, 7, 8, 9, 15, 16, 17, 23, 32, 33, 65}) {
    const MatmulCase c = {.dtypes = {GetParam()}, .n = {37}, .k = 512, .rows = m, .seed = ++seed};
    CheckMatmul(c, Wide(m <= 17 ? 16 : (m <= 33 ? 32 : 64)));
  }
  // Wider than the rows that there are.
  CheckMatmul({.dtypes = {GetParam()}, .n = {37}, .k = 512, .rows = 9, .seed = ++seed}, Wide(64));
}

TEST_P(CudaMatmulTensor, EqualsTheCpuForEveryLengthOfRows) {
  std::vector<std::int64_t> lengths = {256, 768, 1024, 1280};
  if (Info(GetParam()).block_values == 32) lengths.insert(lengths.end(), {32, 96, 288, 544});
  std::uint32_t seed = 200;
  for (const std::int64_t k : lengths) {
    CheckMatmul({.dtypes = {GetParam()}, .n = {19}, .k = k, .rows = 10, .seed = ++seed}, Wide(16));
  }
}

TEST_P(CudaMatmulTensor, MultipliesRowsSortedByExpert) {
  std::uint32_t seed = 300;
  for (const int columns : {16, 32, 64}) {
    CheckMatmul({.dtypes = {GetParam(), GetParam()},
                 .n = {33, 16},
                 .k = 256,
                 .rows_of_expert = {0, 1, 15, 0, 16, 17, 33},
                 .gather = true,
                 .seed = ++seed},
                Wide(columns));
  }
}

TEST_P(CudaMatmulTensor, AddsBiasThenResidualAsTheCpu) {
  for (const bool output : {true, false}) {
    CheckMatmul({.dtypes = {GetParam()},
                 .n = {21},
                 .k = 256,
                 .rows = 11,
                 .gather = true,
                 .bias = output,
                 .residual = true,
                 .output = output,
                 .seed = 400},
                Wide(16));
  }
}

TEST_P(CudaMatmulTensor, TheLargestSumsDoNotOverflow) {
  const MatmulCase c = {.dtypes = {GetParam()}, .n = {18}, .k = 512, .rows = 4, .seed = 500};
  MatmulRun run(c);
  testing::FillExtremes(&run, c, 6);
  run.Check(Wide(16));
}

TEST_P(CudaMatmulTensor, ANanInOneRowStaysThere) {
  MatmulRun run({.dtypes = {GetParam()}, .n = {21}, .k = 512, .rows = 12, .seed = 600});
  std::vector<float> values(512, 0.5F);
  values[300] = std::numeric_limits<float>::quiet_NaN();
  run.operands[0].SetActivations(1, values);
  values[300] = std::numeric_limits<float>::infinity();
  run.operands[0].SetActivations(9, values);
  run.Check(Wide(16));
}

// More experts than a warp looks at in one go, and a chunk of prefill.
TEST(CudaMatmulTensorShapes, FindsRowsAmongManyExperts) {
  std::vector<std::int32_t> rows(203, 0);
  rows[0] = 3;
  rows[31] = 18;
  rows[32] = 1;
  rows[64] = 33;
  rows[127] = 2;
  rows[128] = 16;
  rows[202] = 5;
  for (const int columns : {16, 64}) {
    CheckMatmul({.dtypes = {DType::kQ4_K},
                 .n = {16},
                 .k = 256,
                 .rows_of_expert = rows,
                 .gather = true,
                 .seed = 700},
                Wide(columns));
  }
}

TEST(CudaMatmulTensorShapes, NoRowsWriteNothing) {
  CheckMatmul({.dtypes = {DType::kQ6_K},
               .n = {16},
               .k = 256,
               .rows_of_expert = {0, 0, 0},
               .gather = true,
               .seed = 800},
              Wide(16));
}

TEST(CudaMatmulTensorShapes, AChunkOfPrefill) {
  for (const DType dtype : {DType::kQ4_K, DType::kQ6_K}) {
    CheckMatmul({.dtypes = {dtype}, .n = {5}, .k = 256, .rows = 512, .seed = 900}, Wide(64));
  }
}

TEST(CudaMatmulTensorShapes, RefusesWhatItDoesNotServe) {
  MatmulParams params;
  params.num_matrices = 2;
  params.matrices[0].form = WeightForm::kQ4_K;
  params.matrices[1].form = WeightForm::kQ6_K;
  params.k = 256;
  params.max_rows = 16;
  EXPECT_EQ(Wide(16)(params), cudaErrorInvalidValue);
  params.num_matrices = 1;
  EXPECT_EQ(Wide(24)(params), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace millrace::cuda
