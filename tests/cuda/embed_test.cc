// Embedding rows on the (emulated) GPU against DequantizeRow, bit for bit.
#include "kernels/cuda/embed.h"

#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/weight_layout.h"
#include "kernels/dequantize.h"
#include "tests/cuda/device_array.h"
#include "tests/kernels/float_test_support.h"
#include "tests/kernels/random_weights.h"

namespace millrace::cuda {
namespace {

using millrace::testing::DeviceArray;

constexpr std::int32_t kRows = 37;  // two whole tiles and a part of one

class EmbedOfType : public ::testing::TestWithParam<DTypeInfo> {
 protected:
  // Embeds `tokens` of a random table with rows of n values and compares each row.
  void Check(std::int32_t n, const std::vector<std::int32_t>& tokens, bool chained) {
    SCOPED_TRACE("rows of " + std::to_string(n) + ", seed 7");
    const DType dtype = GetParam().dtype;
    std::mt19937 random(7);
    const std::int64_t row_bytes = RowBytes(dtype, n);
    std::vector<std::byte> file(static_cast<std::size_t>(kRows * row_bytes));
    millrace::testing::FillWeights(dtype, file.data(), std::int64_t{kRows} * n, random);
    std::vector<std::byte> laid_out(static_cast<std::size_t>(LaidOutBytes(dtype, kRows, n)));
    LayOutWeights(dtype, file.data(), kRows, n, laid_out.data());

    DeviceArray<std::byte> table(laid_out);
    DeviceArray<std::int32_t> ids(tokens);
    const auto count = static_cast<std::int32_t>(tokens.size());
    DeviceArray<std::int32_t> num_tokens(std::vector<std::int32_t>{count});
    DeviceArray<float> x(tokens.size() * static_cast<std::size_t>(n));
    EmbedParams params;
    params.dtype = dtype;
    params.table = table.data();
    params.n = n;
    params.token_ids = ids.data();
    params.num_tokens = num_tokens.data();
    params.max_tokens = count + 3;  // of a larger graph
    params.x = x.data();
    params.chained = chained;
    ASSERT_EQ(LaunchEmbed(params, nullptr), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    ASSERT_EQ(cudaGetLastError(), cudaSuccess);

    const std::vector<float> actual = x.Read();
    std::vector<float> expected(static_cast<std::size_t>(n));
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      SCOPED_TRACE("token " + std::to_string(tokens[t]));
      DequantizeRow(dtype, file.data() + tokens[t] * row_bytes, n, expected.data());
      millrace::testing::ExpectSameBits(
          std::span(actual).subspan(t * expected.size(), expected.size()), expected);
    }
  }
};

TEST_P(EmbedOfType, GivesTheRowsOfTheFile) {
  // A type of 32 values may end within a unit of 256.
  const std::int32_t step = GetParam().block_values;
  for (const std::int32_t n : {256, 512, step == 256 ? 768 : 480}) {
    Check(n, {0, 36, 15, 16, 7, 8, 7}, true);
  }
}

TEST_P(EmbedOfType, GivesOneRow) { Check(256, {31}, false); }

INSTANTIATE_TEST_SUITE_P(Types, EmbedOfType, ::testing::ValuesIn(kDTypes),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(EmbedOfFloats, TakesRowsOfAnyLength) {
  const std::int32_t n = 67;
  std::vector<std::byte> file(2 * 4 * n);
  std::mt19937 random(9);
  millrace::testing::FillFloats(DType::kF32, file.data(), 2 * n, random);
  std::vector<std::byte> laid_out(static_cast<std::size_t>(LaidOutBytes(DType::kF32, 2, n)));
  LayOutWeights(DType::kF32, file.data(), 2, n, laid_out.data());
  DeviceArray<std::byte> table(laid_out);
  DeviceArray<std::int32_t> ids(std::vector<std::int32_t>{1});
  DeviceArray<std::int32_t> num_tokens(std::vector<std::int32_t>{1});
  DeviceArray<float> x(n);
  EmbedParams params;
  params.table = table.data();
  params.n = n;
  params.token_ids = ids.data();
  params.num_tokens = num_tokens.data();
  params.max_tokens = 1;
  params.x = x.data();
  ASSERT_EQ(LaunchEmbed(params, nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  std::vector<float> expected(n);
  DequantizeRow(DType::kF32, file.data() + 4 * n, n, expected.data());
  millrace::testing::ExpectSameBits(x.Read(), expected);
}

}  // namespace
}  // namespace millrace::cuda
