// SwiGLU and its quantisation on the (emulated) GPU against the CPU's scalar level, bit for bit.
#include "kernels/cuda/swiglu.h"

#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/moe.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/expect_rows.h"
#include "tests/kernels/float_test_support.h"

namespace millrace::cuda {
namespace {

using millrace::testing::DeviceArray;
using testing::kInfinity;
using testing::kNan;

struct Case {
  std::int32_t tokens;
  std::int32_t rows_per_token;
  std::int32_t ffn;
  std::int64_t stride;
  std::int32_t rows() const { return tokens * rows_per_token; }
};

std::vector<float> RowOnCpu(const float* gate, const float* up, std::int64_t ffn) {
  std::vector<float> values(static_cast<std::size_t>(ffn));
  cpu::SelectMoe(cpu::Isa::kScalar).fns.swiglu(gate, up, ffn, values.data());
  return values;
}

// In every format that rows of this width have. One row more than the step has lies behind.
void ExpectTheRowsOfTheCpu(const Case& c, const std::vector<float>& gate,
                           const std::vector<float>& up) {
  SCOPED_TRACE(std::to_string(c.rows()) + " rows of " + std::to_string(c.ffn));
  DeviceArray<float> device_gate(gate);
  DeviceArray<float> device_up(up);
  DeviceArray<std::int32_t> num_tokens(std::vector<std::int32_t>{c.tokens});
  testing::ActivationArrays out(c.rows() + 1, c.ffn);
  SwigluParams params;
  params.gate = device_gate.data();
  params.up = device_up.data();
  params.stride = c.stride;
  params.num_tokens = num_tokens.data();
  params.max_tokens = c.tokens + 2;
  params.rows_per_token = c.rows_per_token;
  params.ffn = c.ffn;
  params.out = out.rows();
  params.chained = true;
  ASSERT_EQ(LaunchSwiglu(params, nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (std::int32_t r = 0; r < c.rows(); ++r) {
    out.ExpectRow(r, RowOnCpu(gate.data() + r * c.stride, up.data() + r * c.stride, c.ffn));
  }
  out.ExpectUntouched(c.rows());
}

std::vector<float> RandomRows(const Case& c, std::mt19937_64* random) {
  return testing::RandomFloats(static_cast<std::size_t>(c.rows() * c.stride), random, 5);
}

TEST(CudaSwiglu, WritesTheBitsOfTheCpuInEveryFormat) {
  std::mt19937_64 random(1);
  for (const Case& c : {Case{1, 8, 768, 768}, Case{3, 2, 256, 512}, Case{2, 1, 2048, 2048},
                        Case{1, 1, 1280, 1280}, Case{5, 4, 512, 512}}) {
    const std::vector<float> gate = RandomRows(c, &random);
    ExpectTheRowsOfTheCpu(c, gate, RandomRows(c, &random));
  }
}

TEST(CudaSwiglu, TakesAnyWidthAndAlignment) {
  std::mt19937_64 random(2);
  for (const std::int32_t ffn : {1, 15, 17, 32, 96, 130, 160, 259, 288, 1056}) {
    for (const std::int64_t padding : {0, 1}) {  // with 1, rows that no 16-byte load may read
      const Case c = {2, 2, ffn, ffn + padding};
      const std::vector<float> gate = RandomRows(c, &random);
      ExpectTheRowsOfTheCpu(c, gate, RandomRows(c, &random));
    }
  }
}

TEST(CudaSwiglu, CarriesFaultsAndExtremesAsTheCpu) {
  std::mt19937_64 random(3);
  const Case c = {2, 2, 768, 768};
  std::vector<float> gate = RandomRows(c, &random);
  std::vector<float> up = RandomRows(c, &random);
  gate[5] = kNan;
  gate[300] = kInfinity;
  gate[301] = -kInfinity;
  gate[768 + 7] = -200.0F;  // its exp overflows: the result is -0
  gate[768 + 8] = 200.0F;
  up[768 + 600] = kInfinity;
  for (std::size_t i = 1536; i < 1536 + 256; ++i) up[i] = 0.0F;  // a block of zeros
  for (std::size_t i = 1536 + 256; i < 1536 + 512; ++i) up[i] = 1e-39F;
  ExpectTheRowsOfTheCpu(c, gate, up);
}

}  // namespace
}  // namespace millrace::cuda
