// Rows of 16-bit floats of every type of weights on the (emulated) GPU: what the file's blocks
// stand for by DequantizeRow, rounded to nearest even, bit for bit.
#include "kernels/cuda/dequantize.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tests/cuda/device_array.h"
#include "tests/cuda/half_floats.h"
#include "tests/cuda/matmul_cases.h"
#include "tests/kernels/random_weights.h"

namespace millrace::cuda {
namespace {

using ::millrace::testing::DeviceArray;
using ::millrace::testing::NearestBfloat16;
using ::millrace::testing::SameHalf;

constexpr std::uint16_t kUnwritten = 0xFFFF;

struct Case {
  std::int32_t n;      // rows of the matrix
  std::int64_t k;      // values of a row
  std::int32_t first;  // row that is asked for first
  std::int32_t rows;
};

class CudaDequantize : public ::testing::TestWithParam<DType> {
 protected:
  DType dtype() const { return GetParam(); }

  std::vector<std::byte> RandomFile(const Case& c) {
    std::mt19937 random(20261129);
    std::vector<std::byte> file(static_cast<std::size_t>(c.n * RowBytes(dtype(), c.k)));
    millrace::testing::FillWeights(dtype(), file.data(), std::int64_t{c.n} * c.k, random);
    return file;
  }

  std::uint16_t Expected(const std::vector<std::byte>& file, const Case& c, std::int64_t row,
                         std::int64_t i) {
    const std::byte* bytes = file.data() + row * RowBytes(dtype(), c.k);
    if (Info(dtype()).block_values == 1) {  // F16 and BF16 keep their bits
      std::uint16_t half;
      std::memcpy(&half, bytes + 2 * i, sizeof(half));
      return half;
    }
    std::vector<float> values(static_cast<std::size_t>(c.k));
    DequantizeRow(dtype(), bytes, c.k, values.data());
    return NearestBfloat16(values[static_cast<std::size_t>(i)]);
  }

  void Check(const std::vector<std::byte>& file, const Case& c) {
    SCOPED_TRACE("k " + std::to_string(c.k) + ", rows " + std::to_string(c.rows) + " from " +
                 std::to_string(c.first));
    std::vector<std::byte> laid_out(static_cast<std::size_t>(LaidOutBytes(dtype(), c.n, c.k)));
    LayOutWeights(dtype(), file.data(), c.n, c.k, laid_out.data());
    DeviceArray<std::byte> weights(laid_out);
    const std::int64_t stride = HalfStride(c.k);
    DeviceArray<std::uint16_t> out(static_cast<std::size_t>((c.rows + 1) * stride));
    out.Poison();
    DequantizeParams params;
    params.form = FormOf(dtype());
    params.w = weights.data();
    params.k = c.k;
    params.first_row = c.first;
    params.rows = c.rows;
    params.out = out.data();
    params.chained = true;
    ASSERT_EQ(LaunchDequantize(params, nullptr), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const std::vector<std::uint16_t> got = out.Read();
    for (std::int64_t r = 0; r < c.rows; ++r) {
      for (std::int64_t i = 0; i < c.k; ++i) {
        const std::uint16_t half = got[static_cast<std::size_t>(r * stride + i)];
        const std::uint16_t wanted = Expected(file, c, c.first + r, i);
        ASSERT_TRUE(SameHalf(HalfTypeOf(params.form), half, wanted))
            << "row " << r << ", value " << i << ": " << half << ", not " << wanted;
      }
    }
    for (std::int64_t i = 0; i < stride; ++i) {
      ASSERT_EQ(got[static_cast<std::size_t>(c.rows * stride + i)], kUnwritten)
          << "behind the rows";
    }
  }
  void Check(const Case& c) { Check(RandomFile(c), c); }
};

std::vector<DType> TypesThatBecomeHalves() {
  std::vector<DType> types = millrace::testing::QuantisedTypes();
  types.push_back(DType::kF16);
  types.push_back(DType::kBF16);
  return types;
}

INSTANTIATE_TEST_SUITE_P(Types, CudaDequantize, ::testing::ValuesIn(TypesThatBecomeHalves()),
                         millrace::testing::TypeName);

TEST_P(CudaDequantize, GivesWhatTheBlocksStandForRoundedToNearestEven) {
  const std::int64_t block = Info(dtype()).block_values;
  Check({.n = 37, .k = 512, .first = 0, .rows = 37});
  Check({.n = 16, .k = 256, .first = 0, .rows = 16});
  Check({.n = 1, .k = 256, .first = 0, .rows = 1});
  if (block <= 32) Check({.n = 18, .k = 288, .first = 0, .rows = 18});
  if (block <= 32) Check({.n = 3, .k = 32, .first = 0, .rows = 3});
  for (const std::int64_t k : {1, 7, 8, 129, 255, 300}) {
    if (block == 1) Check({.n = 5, .k = k, .first = 0, .rows = 5});
  }
}

TEST_P(CudaDequantize, TakesAnyPartThatBeginsWithATile) {
  Check({.n = 50, .k = 512, .first = 16, .rows = 16});
  Check({.n = 50, .k = 512, .first = 32, .rows = 18});
  Check({.n = 50, .k = 512, .first = 16, .rows = 5});
}

TEST_P(CudaDequantize, KeepsTheEndsOfATypeInfinitiesAndNans) {
  const Case c = {.n = 8, .k = 512, .first = 0, .rows = 8};
  std::vector<std::byte> file = RandomFile(c);
  if (Info(dtype()).block_values > 1) {
    const float halves[] = {65504.0F, 0x1p-24F, std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN()};
    for (std::int32_t r = 0; r < c.n; ++r) {
      millrace::testing::FillExtremeRow(dtype(), r % 2 == 0, halves[r / 2],
                                        file.data() + r * RowBytes(dtype(), c.k), c.k);
    }
  } else {
    const std::uint16_t ends[] = {0x0000, 0x8000, 0x7C00, 0xFC00, 0x7F80, 0x7FC1, 0x0001, 0x7BFF};
    for (std::size_t i = 0; i < std::size(ends); ++i) {
      std::memcpy(file.data() + 2 * i, &ends[i], 2);
    }
  }
  Check(file, c);
}

TEST(CudaDequantizeShapes, RefusesWhatItDoesNotServe) {
  DequantizeParams params;
  params.k = 256;
  params.rows = 16;
  params.form = WeightForm::kF32;
  EXPECT_EQ(LaunchDequantize(params, nullptr), cudaErrorInvalidValue);
  params.form = WeightForm::kQ4_K;
  params.first_row = 8;
  EXPECT_EQ(LaunchDequantize(params, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace millrace::cuda
