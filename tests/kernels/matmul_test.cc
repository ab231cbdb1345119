#include "kernels/cpu/matmul.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/quantize.h"
#include "kernels/reference/matmul.h"
#include "kernels/tile_layout.h"
#include "tests/kernels/guarded_buffer.h"
#include "tests/kernels/random_weights.h"

namespace millrace::cpu {
namespace {

using ::millrace::testing::FillWeights;
using ::millrace::testing::GuardedBuffer;
using ::millrace::testing::StoreHalf;

struct Shape {
  std::int64_t m;
  std::int64_t n;
  std::int64_t k;
  std::int64_t n_begin;
  std::int64_t n_end;
  bool gather;  // permuted rows of x and of y
};

// Rows of the poisoned output beyond those a product writes, and floats after each row.
constexpr std::int64_t kSpareRows = 3;
constexpr std::int64_t kPadding = 5;

// One product's operands in memory that ends at protected pages.
class Problem {
 public:
  Problem(DType dtype, const Shape& shape, std::uint32_t seed)
      : dtype_(dtype),
        shape_(shape),
        rng_(seed),
        w_bytes_(RowBytes(dtype, shape.k)),
        x_bytes_(ActivationRowBytes(Info(dtype).activation, shape.k)),
        w_(static_cast<std::size_t>(shape.n * w_bytes_)),
        x_(static_cast<std::size_t>(x_count() * x_bytes_)) {
    FillWeights(dtype, w_.data(), shape.n * shape.k, rng_);
    FillActivations();
    if (shape.gather) {
      x_rows_ = Permuted(x_count());
      y_rows_ = Permuted(shape.m + kSpareRows);
    }
  }

  std::byte* weight_row(std::int64_t i) { return w_.data() + i * w_bytes_; }
  std::byte* activation_row(std::int64_t r) { return x_.data() + r * x_bytes_; }
  // The rows of x and y that column j uses.
  std::int64_t x_row(std::int64_t j) const { return shape_.gather ? x_rows_[Index(j)] : j; }
  std::int64_t y_row(std::int64_t j) const { return shape_.gather ? y_rows_[Index(j)] : j; }

  // [m + kSpareRows][n + kPadding], NaN wherever the product writes nothing.
  std::vector<float> Run(const MatmulVariant& variant,
                         bool reads_ahead_by_software = ReadsAheadBySoftware()) {
    // The variant's tiles end at a protected page too.
    GuardedBuffer tiles(
        static_cast<std::size_t>(TiledBytes(dtype_, shape_.n, shape_.k, variant.tile_rows)));
    PackTiles(dtype_, w_.data(), shape_.n, shape_.k, variant.tile_rows, tiles.data());
    MatmulParams params;
    params.w = tiles.data();
    params.w_tile_bytes = TileBytes(dtype_, shape_.k, variant.tile_rows);
    params.k = shape_.k;
    params.n_begin = shape_.n_begin;
    params.n_end = shape_.n_end;
    params.x = x_.data();
    params.x_row_bytes = x_bytes_;
    params.x_rows = shape_.gather ? x_rows_.data() : nullptr;
    params.m = shape_.m;
    params.y_stride = y_stride();
    params.y_rows = shape_.gather ? y_rows_.data() : nullptr;
    params.reads_ahead_by_software = reads_ahead_by_software;
    std::vector<float> y(Index((shape_.m + kSpareRows) * y_stride()),
                         std::numeric_limits<float>::quiet_NaN());
    params.y = y.data();
    variant.fn(params);
    return y;
  }

  float Output(const std::vector<float>& y, std::int64_t i, std::int64_t j) const {
    return y[Index(y_row(j) * y_stride() + i)];
  }

  reference::Product Reference(std::int64_t i, std::int64_t j) {
    return reference::DotProduct(dtype_, weight_row(i), activation_row(x_row(j)), shape_.k);
  }

 private:
  static std::size_t Index(std::int64_t i) { return static_cast<std::size_t>(i); }
  std::int64_t y_stride() const { return shape_.n + kPadding; }
  std::int64_t x_count() const { return shape_.gather ? shape_.m + 2 : shape_.m; }

  void FillActivations() {
    std::normal_distribution<float> normal(0.0F, 1.0F);
    std::vector<float> row(Index(shape_.k));
    const QuantizeVariant& quantize = SelectQuantize(Info(dtype_).activation, Isa::kScalar);
    for (std::int64_t r = 0; r < x_count(); ++r) {
      for (float& value : row) value = normal(rng_);
      quantize.fn(row.data(), shape_.k, activation_row(r));
    }
  }

  std::vector<std::int32_t> Permuted(std::int64_t count) {
    std::vector<std::int32_t> rows(Index(count));
    std::iota(rows.begin(), rows.end(), 0);
    std::shuffle(rows.begin(), rows.end(), rng_);
    rows.resize(Index(shape_.m));
    return rows;
  }

  DType dtype_;
  Shape shape_;
  std::mt19937 rng_;
  std::int64_t w_bytes_;
  std::int64_t x_bytes_;
  GuardedBuffer w_;
  GuardedBuffer x_;
  std::vector<std::int32_t> x_rows_;
  std::vector<std::int32_t> y_rows_;
};

// The number of outputs that differ; a NaN equals any NaN, since its sign and payload are not part
// of the numerics.
std::int64_t CountDifferences(const std::vector<float>& a, const std::vector<float>& b) {
  if (std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0) return 0;
  std::int64_t count = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const bool same_bits = std::bit_cast<std::uint32_t>(a[i]) == std::bit_cast<std::uint32_t>(b[i]);
    count += !same_bits && !(std::isnan(a[i]) && std::isnan(b[i]));
  }
  return count;
}

void ExpectWithinBound(Problem& problem, DType dtype, const Shape& shape,
                       const std::vector<float>& y) {
  // A few rows of each shape: the reference takes as long as everything else.
  const std::int64_t column_step = std::max<std::int64_t>(1, shape.m / 6);
  const std::int64_t row_step = std::max<std::int64_t>(1, (shape.n_end - shape.n_begin) / 9);
  double largest = 0.0;
  for (std::int64_t j = 0; j < shape.m; j += column_step) {
    for (std::int64_t i = shape.n_begin; i < shape.n_end; i += row_step) {
      const reference::Product expected = problem.Reference(i, j);
      const double got = problem.Output(y, i, j);
      ASSERT_LE(std::abs(got - expected.value),
                reference::ErrorBound(dtype, shape.k, expected.magnitude))
          << "row " << i << ", column " << j;
      largest = std::max(largest, std::abs(got));
    }
  }
  EXPECT_GT(largest, 1e-3) << "the data say nothing";
}

// Everything outside the slice and outside the rows of y is as it was.
void ExpectOnlySliceWritten(const Problem& problem, const Shape& shape,
                            const std::vector<float>& y) {
  const auto stride = static_cast<std::size_t>(shape.n + kPadding);
  std::vector<bool> written(y.size(), false);
  for (std::int64_t j = 0; j < shape.m; ++j) {
    for (std::int64_t i = shape.n_begin; i < shape.n_end; ++i) {
      written[static_cast<std::size_t>(problem.y_row(j)) * stride + static_cast<std::size_t>(i)] =
          true;
    }
  }
  for (std::size_t at = 0; at < y.size(); ++at) ASSERT_EQ(std::isnan(y[at]), !written[at]) << at;
}

void Check(const MatmulVariant& variant, const Shape& shape) {
  const std::uint32_t seed = static_cast<std::uint32_t>(shape.m * 131 + shape.n * 17 + shape.k);
  SCOPED_TRACE(::testing::Message() << Name(variant) << " m " << shape.m << " n " << shape.n
                                    << " k " << shape.k << " seed " << seed);
  Problem problem(variant.dtype, shape, seed);
  const std::vector<float> y = problem.Run(variant);
  ExpectOnlySliceWritten(problem, shape, y);
  if (variant.isa == Isa::kScalar) return ExpectWithinBound(problem, variant.dtype, shape, y);
  EXPECT_EQ(CountDifferences(y, problem.Run(SelectMatmul(variant.dtype, Isa::kScalar))), 0);
}

class MatmulTest : public ::testing::TestWithParam<MatmulVariant> {
 protected:
  void SetUp() override {
    if (!Supports(GetParam().isa)) GTEST_SKIP() << Name(GetParam()) << ": not on this machine";
  }
};

// The variants that sum integers.
class IntegerMatmulTest : public MatmulTest {};

std::vector<MatmulVariant> IntegerVariants() {
  std::vector<MatmulVariant> variants;
  for (const MatmulVariant& variant : MatmulVariants()) {
    if (Info(variant.dtype).block_values > 1) variants.push_back(variant);
  }
  return variants;
}

std::string TestName(const ::testing::TestParamInfo<MatmulVariant>& info) {
  std::string name = Name(info.param);
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '/' || c == '-'; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Variants, MatmulTest, ::testing::ValuesIn(MatmulVariants()), TestName);
INSTANTIATE_TEST_SUITE_P(Variants, IntegerMatmulTest, ::testing::ValuesIn(IntegerVariants()),
                         TestName);

// Together the two kinds of test say: every level is bit-equal to the scalar one, and the scalar
// one is within the derived bound of the reference.
TEST_P(MatmulTest, EveryNumberOfColumns) {
  for (const std::int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 23, 32, 33}) {
    Check(GetParam(), {.m = m, .n = 37, .k = 512, .n_begin = 0, .n_end = 37, .gather = false});
  }
}

// Products of few columns ask in one of two ways, and no machine takes both by itself.
TEST_P(IntegerMatmulTest, AskingForMemoryInAdvanceChangesNoBit) {
  for (const std::int64_t m : {1, 2, 5, 8}) {
    const Shape shape = {.m = m, .n = 37, .k = 512, .n_begin = 0, .n_end = 37, .gather = false};
    Problem problem(GetParam().dtype, shape, 7);
    EXPECT_EQ(CountDifferences(problem.Run(GetParam(), true), problem.Run(GetParam(), false)), 0)
        << m << " columns";
  }
}

TEST_P(MatmulTest, AChunkOfPrefill) {
  Check(GetParam(), {.m = 512, .n = 5, .k = 256, .n_begin = 0, .n_end = 5, .gather = true});
}

TEST_P(MatmulTest, EveryLengthOfRows) {
  std::vector<std::int64_t> lengths = {256, 512, 768, 2048};
  const std::int64_t block = Info(GetParam().dtype).block_values;
  if (block <= 32) lengths.insert(lengths.end(), {32, 64, 96, 128, 160, 224, 544});
  if (block == 1) lengths.insert(lengths.end(), {1, 2, 15, 16, 17, 33, 255, 257, 1000});
  for (const std::int64_t k : lengths) {
    for (const std::int64_t m : {1, 5}) {
      Check(GetParam(), {.m = m, .n = 19, .k = k, .n_begin = 0, .n_end = 19, .gather = false});
    }
  }
}

TEST_P(MatmulTest, EverySliceAndGather) {
  for (const auto& [begin, end] : std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 1},
                                                                                     {3, 6},
                                                                                     {3, 7},
                                                                                     {5, 21},
                                                                                     {0, 16},
                                                                                     {16, 32},
                                                                                     {15, 39},
                                                                                     {39, 40},
                                                                                     {7, 7},
                                                                                     {16, 17},
                                                                                     {16, 40},
                                                                                     {32, 33},
                                                                                     {8, 15},
                                                                                     {24, 39}}) {
    if (begin % GetParam().tile_rows != 0) continue;  // a slice begins with a tile
    for (const std::int64_t m : {1, 3, 10}) {
      if (begin == end && GetParam().isa == Isa::kScalar) continue;  // nothing to measure
      Check(GetParam(),
            {.m = m, .n = 40, .k = 256, .n_begin = begin, .n_end = end, .gather = true});
    }
  }
}

TEST_P(MatmulTest, NoColumnsWriteNothing) {
  const Shape shape{.m = 0, .n = 16, .k = 256, .n_begin = 0, .n_end = 16, .gather = true};
  Problem problem(GetParam().dtype, shape, 1);
  ExpectOnlySliceWritten(problem, shape, problem.Run(GetParam()));
}

// The largest sums that the types can hold: every weight and every scale at one end, every
// activation at +-127, signs chosen so that the products add up.
void FillExtreme(DType dtype, bool ones, float half, std::byte* out, std::int64_t count) {
  const DTypeInfo& info = Info(dtype);
  for (std::int64_t b = 0; b < count / info.block_values; ++b) {
    std::byte* block = out + b * info.block_bytes;
    std::memset(block, ones ? 0xFF : 0x00, static_cast<std::size_t>(info.block_bytes));
    // Signed fields: -128 and 127 are the ends, not -1.
    if (dtype == DType::kQ8_0) std::memset(block + 2, ones ? 0x80 : 0x7F, 32);
    if (dtype == DType::kQ6_K) std::memset(block + 192, ones ? 0x7F : 0x80, 16);
    // The largest of IQ4_XS's values is nibble 0, with scales of 31 and of -32.
    if (dtype == DType::kIQ4_XS) std::memset(block + 8, 0x00, 128);
    for (const std::size_t offset : testing::HalfOffsets(dtype)) StoreHalf(block + offset, half);
  }
}

void SetActivations(ActivationFormat format, std::int8_t q, std::byte* row, std::int64_t k) {
  // 127 everywhere quantises to 127 everywhere, at scale 1.
  const std::vector<float> values(static_cast<std::size_t>(k), static_cast<float>(q));
  SelectQuantize(format, Isa::kScalar).fn(values.data(), k, row);
}

TEST_P(IntegerMatmulTest, TheLargestSumsDoNotOverflow) {
  const DType dtype = GetParam().dtype;
  for (const std::int64_t m : {1, 2, 11}) {
    const Shape shape{.m = m, .n = 18, .k = 512, .n_begin = 0, .n_end = 18, .gather = false};
    Problem problem(dtype, shape, 7);
    // Even rows at one end, odd rows at the other; the halves at the ends of their range too.
    for (std::int64_t i = 0; i < shape.n; ++i) {
      const float half = i % 4 < 2 ? 65504.0F : 0x1p-24F;
      FillExtreme(dtype, i % 2 == 0, half, problem.weight_row(i), shape.k);
    }
    for (std::int64_t j = 0; j < m; ++j) {
      SetActivations(Info(dtype).activation, j % 2 == 0 ? 127 : -127, problem.activation_row(j),
                     shape.k);
    }
    const std::vector<float> y = problem.Run(GetParam());
    ExpectWithinBound(problem, dtype, shape, y);
    EXPECT_EQ(CountDifferences(y, problem.Run(SelectMatmul(dtype, Isa::kScalar))), 0);
  }
}

TEST_P(MatmulTest, ANanInOneRowStaysThere) {
  const DType dtype = GetParam().dtype;
  for (const std::int64_t m : {2, 9}) {
    const Shape shape{.m = m, .n = 21, .k = 512, .n_begin = 0, .n_end = 21, .gather = false};
    Problem problem(dtype, shape, 11);
    const std::vector<float> clean = problem.Run(GetParam());
    std::vector<float> values(static_cast<std::size_t>(shape.k), 0.5F);
    values[300] = std::numeric_limits<float>::quiet_NaN();
    SelectQuantize(Info(dtype).activation, Isa::kScalar)
        .fn(values.data(), shape.k, problem.activation_row(1));
    const std::vector<float> faulty = problem.Run(GetParam());
    for (std::int64_t i = 0; i < shape.n; ++i) {
      for (std::int64_t j = 0; j < m; ++j) {
        if (j == 1) {
          EXPECT_TRUE(std::isnan(problem.Output(faulty, i, j))) << i;
        } else {
          EXPECT_EQ(problem.Output(faulty, i, j), problem.Output(clean, i, j)) << i << ", " << j;
        }
      }
    }
  }
}

TEST(MatmulVariants, HoldEveryTypeAtEveryLevelMostSpecificFirst) {
  const auto variants = MatmulVariants();
  EXPECT_TRUE(std::is_sorted(variants.begin(), variants.end(),
                             [](const auto& a, const auto& b) { return a.isa > b.isa; }));
  for (const DTypeInfo& info : kDTypes) {
    EXPECT_EQ(SelectMatmul(info.dtype, Isa::kScalar).isa, Isa::kScalar);
    EXPECT_EQ(SelectMatmul(info.dtype, Isa::kAvx2).isa, Isa::kAvx2);
    // Never AVX-VNNI there: a machine with AVX-512 VNNI may lack it.
    EXPECT_EQ(SelectMatmul(info.dtype, Isa::kAvx512).isa, Isa::kAvx512);
    EXPECT_EQ(SelectMatmul(info.dtype, Isa::kAvx512).dtype, info.dtype);
  }
}

}  // namespace
}  // namespace millrace::cpu
