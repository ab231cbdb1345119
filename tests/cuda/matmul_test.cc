// Which kernel serves a product, and that a planned launch of any mix of types and any way of
// choosing rows has the CPU's bits on the (emulated) GPU.
#include "kernels/cuda/matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cuda/matmul_plan.h"
#include "tests/cuda/matmul_cases.h"

namespace millrace::cuda {
namespace {

using ::millrace::testing::CheckMatmul;
using ::millrace::testing::MatmulCase;

cudaError_t Planned(const MatmulParams& params) { return LaunchMatmul(params, {}, nullptr); }

class CudaMatmul : public ::testing::TestWithParam<DType> {};

std::vector<DType> AllTypes() {
  std::vector<DType> types;
  for (const DTypeInfo& info : kDTypes) types.push_back(info.dtype);
  return types;
}
INSTANTIATE_TEST_SUITE_P(Types, CudaMatmul, ::testing::ValuesIn(AllTypes()), testing::TypeName);

TEST_P(CudaMatmul, EveryTypeIsServedForEveryWayOfChoosingRows) {
  std::uint32_t seed = 100;
  for (const std::int32_t rows : {1, 6, 20}) {
    CheckMatmul({.dtypes = {GetParam()}, .n = {35}, .k = 256, .rows = rows, .seed = ++seed},
                Planned);
  }
  CheckMatmul({.dtypes = {GetParam(), GetParam()},
               .n = {24, 24},
               .k = 256,
               .rows = 8,
               .experts = 5,
               .rows_per_x = 4,
               .seed = ++seed},
              Planned);
  for (const std::int32_t most : {17, 49, 120}) {
    CheckMatmul({.dtypes = {GetParam()},
                 .n = {24},
                 .k = 256,
                 .rows_of_expert = {0, most, 1},
                 .gather = true,
                 .seed = ++seed},
                Planned);
  }
}

// The same row alone, among few and among many: every kernel gives its bits.
TEST_P(CudaMatmul, ARowsBitsDoNotDependOnHowManyThereAre) {
  for (const std::int32_t rows : {1, 3, 18}) {
    CheckMatmul({.dtypes = {GetParam()}, .n = {17}, .k = 768, .rows = rows, .seed = 200}, Planned);
  }
}

TEST(CudaMatmulMixed, MatricesOfManyFormsAreServedToo) {
  std::uint32_t seed = 300;
  for (const std::int32_t rows : {1, 5, 18}) {
    CheckMatmul({.dtypes = {DType::kQ4_K, DType::kQ6_K, DType::kF16, DType::kQ8_0},
                 .n = {24, 16, 5, 33},
                 .k = 512,
                 .rows = rows,
                 .bias = true,
                 .seed = ++seed},
                Planned);
    CheckMatmul({.dtypes = {DType::kQ4_0, DType::kQ4_1, DType::kQ4_0},
                 .n = {24, 16, 5},
                 .k = 288,
                 .rows = rows,
                 .seed = ++seed},
                Planned);
  }
}

// ---- The plan -----------------------------------------------------------------------------------

MatmulProblem Dense(WeightForm form, std::int64_t n, std::int64_t k, std::int32_t rows) {
  MatmulProblem problem;
  problem.form = form;
  problem.k = k;
  problem.tiles = TileCount(form, n);
  problem.max_rows = rows;
  return problem;
}

// Qwen3-30B-A3B on 132 multiprocessors.
TEST(MatmulPlan, FewTilesShareKAndManyDoNot) {
  const MatmulShape qkv = PlanMatmul(Dense(WeightForm::kQ4_K, 5120, 2048, 1));
  EXPECT_EQ(qkv.kernel, MatmulKernel::kVector);
  EXPECT_EQ(qkv.columns, 1);
  EXPECT_EQ(qkv.splits, 8);  // 320 tiles, 2 112 warps wanted: one of 8 units each
  const MatmulShape head = PlanMatmul(Dense(WeightForm::kQ6_K, 151936, 2048, 1));
  EXPECT_EQ(head.splits, 1);
  EXPECT_EQ(head.tiles, 8);
  // 16 units and 128 tiles: 8 warps of two units each.
  EXPECT_EQ(PlanMatmul(Dense(WeightForm::kQ4_K, 2048, 4096, 1)).splits, 8);
  // 12 units: 8 warps would leave some with one unit and some with two, 6 have two each.
  EXPECT_EQ(PlanMatmul(Dense(WeightForm::kQ4_K, 2048, 3072, 1)).splits, 6);
  MatmulProblem down = Dense(WeightForm::kQ4_K, 2048, 768, 8);
  down.pairs = true;
  const MatmulShape pairs = PlanMatmul(down);
  EXPECT_EQ(pairs.kernel, MatmulKernel::kVector);
  EXPECT_EQ(pairs.columns, 1);
  EXPECT_EQ(pairs.splits, 3);  // 1 024 tiles of three units: each warp one
}

TEST(MatmulPlan, WidthFollowsRowsOfAnExpert) {
  MatmulProblem gate = Dense(WeightForm::kQ4_K, 768, 2048, 32 * 8);
  gate.num_experts = 128;
  EXPECT_EQ(PlanMatmul(gate).columns, 16);
  gate.max_rows = 512 * 8;
  EXPECT_EQ(PlanMatmul(gate).columns, 32);
  gate.max_rows = 4096 * 8;
  EXPECT_EQ(PlanMatmul(gate).columns, 64);
  EXPECT_EQ(PlanMatmul(gate).kernel, MatmulKernel::kTensor);
}

TEST(MatmulPlan, DenseRowsTakeTheWidestShapeThatFillsTheDevice) {
  EXPECT_EQ(PlanMatmul(Dense(WeightForm::kQ4_K, 5120, 2048, 8)).kernel, MatmulKernel::kVector);
  EXPECT_EQ(PlanMatmul(Dense(WeightForm::kQ4_K, 5120, 2048, 8)).columns, 8);
  EXPECT_EQ(PlanMatmul(Dense(WeightForm::kQ4_K, 5120, 2048, 17)).kernel, MatmulKernel::kTensor);
  EXPECT_EQ(PlanMatmul(Dense(WeightForm::kQ4_K, 5120, 2048, 32)).columns, 16);
  EXPECT_EQ(PlanMatmul(Dense(WeightForm::kQ4_K, 5120, 2048, 512)).columns, 64);
}

TEST(MatmulPlan, FloatFormsHaveAKernelOfTheirOwn) {
  for (const WeightForm form : {WeightForm::kF32, WeightForm::kF16, WeightForm::kBF16}) {
    for (const std::int32_t rows : {1, 8, 512}) {
      EXPECT_EQ(PlanMatmul(Dense(form, 128, 2048, rows)).kernel, MatmulKernel::kFloat);
    }
  }
}

// Whatever the sizes: shapes are what the kernels take, fit the smallest device's shared memory,
// and say why.
TEST(MatmulPlan, EveryShapeIsOneThatAKernelTakes) {
  constexpr std::int64_t kSmallestShared = 99 << 10;  // of a block, sm_120
  for (const DTypeInfo& info : kDTypes) {
    const WeightForm form = FormOf(info.dtype);
    for (const std::int64_t k : {256, 768, 2048, 4096, 12288, 29696, 65536}) {
      for (const std::int64_t n : {16, 512, 5120, 151936}) {
        for (const std::int32_t rows : {1, 2, 8, 9, 16, 17, 64, 512, 4096}) {
          for (const int kind : {0, 1, 2}) {
            MatmulProblem problem = Dense(form, n, k, rows);
            problem.pairs = kind == 1;
            problem.num_experts = kind == 2 ? 128 : 0;
            const MatmulShape shape = PlanMatmul(problem);
            ASSERT_GT(std::strlen(shape.why), 0U);
            if (shape.kernel != MatmulKernel::kVector) continue;
            ASSERT_TRUE(shape.columns == 1 || shape.columns == 8);
            ASSERT_GE(shape.splits, 1);
            ASSERT_LE(shape.tiles * shape.splits, 8);
            ASSERT_GT(shape.pass_units, 0);
            ASSERT_EQ(shape.pass_units % shape.splits, 0);
            ASSERT_LE(VectorSharedBytes(form, problem.k, shape), kSmallestShared)
                << info.name << " k " << k << " rows " << rows;
          }
        }
      }
    }
  }
}

TEST(MatmulPlan, RowBlocksCoverEveryWayToDealRows) {
  EXPECT_EQ(MaxRowBlocks(33, 0, 16), 3);
  EXPECT_EQ(MaxRowBlocks(1, 128, 16), 1);
  EXPECT_EQ(MaxRowBlocks(4096, 128, 32), 128 + 128);
  for (const int columns : {1, 16, 64}) {
    for (std::int32_t rows = 1; rows < 200; rows += 7) {
      // The worst: as many experts as can be with one row more than whole blocks.
      std::int64_t blocks = 0;
      std::int32_t left = rows;
      for (int expert = 0; expert < 5 && left > 0; ++expert) {
        const std::int32_t take = expert == 4 ? left : std::min(left, columns + 1);
        blocks += (take + columns - 1) / columns;
        left -= take;
      }
      EXPECT_LE(blocks, MaxRowBlocks(rows, 5, columns)) << rows << ", " << columns;
    }
  }
}

}  // namespace
}  // namespace millrace::cuda
