// Rows of activations in 16 bits, and what is done to the product of such rows, on the (emulated)
// GPU, bit for bit.
#include "kernels/cuda/half_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/cuda/device_array.h"
#include "tests/cuda/half_floats.h"

namespace millrace::cuda {
namespace {

using ::millrace::testing::DeviceArray;
using ::millrace::testing::NearestBfloat16;
using ::millrace::testing::SameHalf;
using Rows = std::vector<std::vector<float>>;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Result {
  std::vector<std::uint16_t> halves;  // [rows][HalfStride(k)]
  std::vector<float> scales;
};

Result Run(const Rows& rows, HalfType type) {
  const auto k = static_cast<std::int64_t>(rows[0].size());
  const auto row_bytes =
      static_cast<std::size_t>(ActivationLayoutOf(ActivationFormat::kF32, k).row_bytes);
  // What has no meaning in a row is NaN.
  std::vector<std::byte> bytes(rows.size() * row_bytes, std::byte{0xFF});
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::memcpy(bytes.data() + r * row_bytes, rows[r].data(), rows[r].size() * sizeof(float));
  }
  DeviceArray<std::byte> x(bytes);
  DeviceArray<std::uint16_t> out(rows.size() * static_cast<std::size_t>(HalfStride(k)));
  DeviceArray<float> scales(rows.size());
  out.Poison();
  scales.Poison();
  HalfRowsParams params;
  params.x = x.data();
  params.k = k;
  params.rows = static_cast<std::int32_t>(rows.size());
  params.type = type;
  params.out = out.data();
  params.scales = type == HalfType::kF16 ? scales.data() : nullptr;
  params.chained = true;
  EXPECT_EQ(LaunchHalfRows(params, nullptr), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return {out.Read(), scales.Read()};
}

// Of the largest magnitude, from its exponent by frexp: 2^(exponent - 15), but no less than 2^-126.
float ScaleOf(const std::vector<float>& row) {
  float most = 0.0F;
  for (const float value : row) {
    if (!std::isfinite(value)) return 1.0F;
    most = std::max(most, std::abs(value));
  }
  int exponent = 0;
  std::frexp(most, &exponent);
  if (most == 0.0F) return 0x1p-126F;
  return std::ldexp(1.0F, std::max(exponent - 15, -126));
}

void Check(const Rows& rows) {
  for (const HalfType type : {HalfType::kF16, HalfType::kBF16}) {
    const Result result = Run(rows, type);
    const auto stride =
        static_cast<std::size_t>(HalfStride(static_cast<std::int64_t>(rows[0].size())));
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const float scale = ScaleOf(rows[r]);
      if (type == HalfType::kF16) {
        ASSERT_EQ(result.scales[r], scale) << "row " << r;
      }
      for (std::size_t i = 0; i < rows[r].size(); ++i) {
        const float value = rows[r][i];
        const std::uint16_t wanted =
            type == HalfType::kF16 ? FloatToHalf(value / scale) : NearestBfloat16(value);
        const std::uint16_t half = result.halves[r * stride + i];
        ASSERT_TRUE(SameHalf(type, half, wanted)) << "row " << r << ", value " << i << ", " << value
                                                  << ": " << half << ", not " << wanted;
      }
    }
  }
}

Rows RandomRows(std::size_t count, std::size_t k, float size, std::mt19937* random) {
  std::normal_distribution<float> normal(0.0F, size);
  Rows rows(count, std::vector<float>(k));
  for (auto& row : rows) {
    for (float& value : row) value = normal(*random);
  }
  return rows;
}

TEST(CudaHalfRows, AreRoundedToNearestEvenForEveryLength) {
  std::mt19937 random(1);
  for (const std::size_t k : {1, 3, 4, 31, 32, 33, 256, 1000, 1024, 1025, 2048}) {
    SCOPED_TRACE("k " + std::to_string(k) + ", seed 1");
    Check(RandomRows(5, k, 1.0F, &random));
  }
}

TEST(CudaHalfRows, RoundTiesToEven) {
  Rows rows(1);
  for (std::uint32_t upper = 0x3F80; upper < 0x3FA0; ++upper) {
    for (const std::uint32_t lower :
         {0x0000U, 0x0001U, 0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU, 0x1000U, 0x3000U, 0x5000U}) {
      rows[0].push_back(std::bit_cast<float>((upper << 16) | lower));
    }
  }
  Check(rows);
}

TEST(CudaHalfRows, KeepEveryRangeOfFloats) {
  std::mt19937 random(2);
  for (const float size : {1e38F, 1e30F, 65504.0F, 1e-5F, 1e-30F, 1e-38F, 1e-42F}) {
    SCOPED_TRACE(size);
    Check(RandomRows(3, 100, size * 0.2F, &random));
  }
  const float most = std::numeric_limits<float>::max();
  const float least = std::numeric_limits<float>::denorm_min();
  Check({{most, -most, 1.0F, least},
         {0.0F, -0.0F, 0.0F, 0.0F},
         {least, -least, 0.0F, least},
         {32768.0F, 32767.999F, 65504.0F, 16384.0F}});
}

TEST(CudaHalfRows, AFaultOfOneRowStaysThere) {
  Check({{1.0F, kNan, 3.0F, 70000.0F},
         {1.0F, 2.0F, 3.0F, 4.0F},
         {1.0F, kInfinity, -kInfinity, 1e30F}});
}

// ---- After the product -------------------------------------------------------------------------

struct FinishCase {
  std::int32_t rows, n;
  std::int64_t stride;
  bool scales, bias, residual;
};

std::vector<float> RandomFloats(std::size_t count, std::mt19937* random) {
  return RandomRows(1, count, 1.0F, random)[0];
}

void CheckFinish(const FinishCase& c) {
  std::mt19937 random(3);
  const auto count = static_cast<std::size_t>(c.rows * c.stride);
  const auto add_stride = static_cast<std::size_t>(c.n + 3);
  const std::vector<float> product = RandomFloats(count, &random);
  const std::vector<float> bias = RandomFloats(static_cast<std::size_t>(c.n), &random);
  const std::vector<float> residual =
      RandomFloats(static_cast<std::size_t>(c.rows) * add_stride, &random);
  std::vector<float> scales(static_cast<std::size_t>(c.rows));
  for (std::size_t r = 0; r < scales.size(); ++r) {
    scales[r] = std::ldexp(1.0F, static_cast<int>(r % 7) - 3);
  }
  DeviceArray<float> d_product(product), d_bias(bias), d_residual(residual), d_scales(scales);
  FinishProductParams params;
  params.product = d_product.data();
  params.stride = c.stride;
  params.scales = c.scales ? d_scales.data() : nullptr;
  params.bias = c.bias ? d_bias.data() : nullptr;
  params.add_to = c.residual ? d_residual.data() : nullptr;
  params.add_stride = static_cast<std::int64_t>(add_stride);
  params.rows = c.rows;
  params.n = c.n;
  params.chained = true;
  ASSERT_EQ(LaunchFinishProduct(params, nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);

  std::vector<float> wanted_product = product;
  std::vector<float> wanted_residual = residual;
  for (std::size_t r = 0; r < scales.size(); ++r) {
    for (std::size_t i = 0; i < bias.size(); ++i) {
      float& at = wanted_product[r * static_cast<std::size_t>(c.stride) + i];
      float value = c.scales ? at * scales[r] : at;
      if (c.bias) value = value + bias[i];
      if (c.residual) {
        wanted_residual[r * add_stride + i] = residual[r * add_stride + i] + value;
      } else {
        at = value;
      }
    }
  }
  EXPECT_EQ(d_product.Read(), wanted_product);
  EXPECT_EQ(d_residual.Read(), wanted_residual);
}

TEST(CudaFinishProduct, ScalesAddsTheBiasAndTheResidualAndTouchesNothingElse) {
  for (const bool scales : {false, true}) {
    for (const bool bias : {false, true}) {
      for (const bool residual : {false, true}) {
        SCOPED_TRACE(::testing::Message() << "seed 3, " << scales << bias << residual);
        CheckFinish({.rows = 3,
                     .n = 37,
                     .stride = 40,
                     .scales = scales,
                     .bias = bias,
                     .residual = residual});
        CheckFinish({.rows = 2,
                     .n = 1030,
                     .stride = 1030,
                     .scales = scales,
                     .bias = bias,
                     .residual = residual});
      }
    }
  }
}

}  // namespace
}  // namespace millrace::cuda
