// Norm, rotation and append of heads on the (emulated) GPU against the CPU's scalar level, bit for
// bit.
#include "kernels/cuda/rope_append.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/rope_cases.h"
#include "tests/kernels/float_test_support.h"
#include "tests/kernels/fp8_reference.h"

namespace millrace::cuda {
namespace {

using testing::DeviceArray;
using testing::kInfinity;
using testing::kNan;
using testing::MakeRopeInputs;
using Case = testing::RopeCase;
using Inputs = testing::RopeInputs;

void ExpectAsOnCpu(const Case& c, const Inputs& in) {
  SCOPED_TRACE("head_dim " + std::to_string(c.head_dim) + ", rotary_dim " +
               std::to_string(c.rotary_dim) + ", block_size " + std::to_string(c.block_size));
  // The q, k and v of a token side by side, as one product writes them.
  const std::int32_t width = (c.heads + 2 * c.kv_heads) * c.head_dim;
  const std::int32_t q_width = c.heads * c.head_dim;
  const std::int32_t kv_width = c.kv_heads * c.head_dim;
  std::vector<float> qkv(static_cast<std::size_t>(c.tokens * width));
  for (std::int32_t t = 0; t < c.tokens; ++t) {
    float* row = qkv.data() + t * width;
    std::copy_n(in.q.data() + t * q_width, q_width, row);
    std::copy_n(in.k.data() + t * kv_width, kv_width, row + q_width);
    std::copy_n(in.v.data() + t * kv_width, kv_width, row + q_width + kv_width);
  }
  DeviceArray<float> device_qkv(qkv);
  testing::RopeOnDevice device(c, in);
  RopeAppendParams params = device.Params();
  params.q = device_qkv.data();
  params.k = device_qkv.data() + q_width;
  params.v = device_qkv.data() + q_width + kv_width;
  params.q_stride = params.k_stride = params.v_stride = width;
  ASSERT_EQ(LaunchRopeAppend(params, nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  ASSERT_EQ(cudaGetLastError(), cudaSuccess);
  device.Expect(device_qkv.Read(), width);
}

class RopeAppendOfType : public ::testing::TestWithParam<KvDType> {};

TEST_P(RopeAppendOfType, GivesTheBitsOfTheCpu) {
  std::mt19937_64 random(1);
  const KvDType type = GetParam();
  const std::vector<Case> cases = {
      {.dtype = type, .head_dim = 128, .heads = 32, .kv_heads = 4, .rotary_dim = 128},
      {.dtype = type,
       .head_dim = 64,
       .heads = 3,
       .kv_heads = 1,
       .rotary_dim = 64,
       .block_size = 16,
       .tokens = 9},
      {.dtype = type,
       .head_dim = 256,
       .heads = 5,
       .kv_heads = 5,
       .rotary_dim = 64,
       .block_size = 64,
       .pairing = RopePairing::kInterleaved,
       .norms = false,
       .tokens = 2},
      {.dtype = type, .head_dim = 96, .heads = 4, .kv_heads = 2, .rotary_dim = 34, .tokens = 5},
      {.dtype = type,
       .head_dim = 32,
       .heads = 2,
       .kv_heads = 2,
       .rotary_dim = 32,
       .pairing = RopePairing::kInterleaved,
       .tokens = 33},
      {.dtype = type,
       .head_dim = 80,
       .heads = 6,
       .kv_heads = 2,
       .rotary_dim = 80,
       .norms = false,
       .tokens = 1},
  };
  for (const Case& c : cases) {
    if (CanAttend(c.dtype, c.head_dim)) ExpectAsOnCpu(c, MakeRopeInputs(c, &random));
  }
}

TEST_P(RopeAppendOfType, CarriesFaultsAndExtremesAsTheCpu) {
  std::mt19937_64 random(2);
  const Case c = {.dtype = GetParam(),
                  .head_dim = 64,
                  .heads = 2,
                  .kv_heads = 2,
                  .rotary_dim = 64,
                  .norms = false,
                  .tokens = 7};
  Inputs in = MakeRopeInputs(c, &random);
  const auto row = static_cast<std::size_t>(2 * 64);
  in.q[3] = kNan;
  in.k[5] = kNan;
  in.v[row + 40] = kInfinity;
  in.v[row + 70] = -kNan;
  for (std::size_t i = 2 * row; i < 3 * row; ++i) in.v[i] = 1e38F;   // above all halves
  for (std::size_t i = 3 * row; i < 4 * row; ++i) in.v[i] *= 1e-8F;  // below them, or subnormal
  for (std::size_t i = 4 * row; i < 4 * row + 64; ++i) in.v[i] = -0.0F;
  in.v[4 * row + 64] = 65519.0F;    // the largest that rounds to a finite half
  in.v[4 * row + 65] = 65520.0F;    // rounds to infinity
  in.v[4 * row + 66] = 0x1.002p0F;  // half way between two halves: to even
  in.v[4 * row + 67] = 0x1.006p0F;
  in.v[5 * row] = 127.0F;  // the factor is 1, so these are ties
  for (std::size_t i = 1; i < 64; ++i) in.v[5 * row + i] = static_cast<float>(i) - 32.5F;
  in.v[5 * row + 32] = 127.0F;
  for (std::size_t i = 0; i + 2 < row; ++i) {  // half way between two values of fp8: to even
    const auto code = static_cast<int>(i);
    in.v[6 * row + i] =
        static_cast<float>((testing::Fp8Magnitude(code) + testing::Fp8Magnitude(code + 1)) *
                           (i % 3 == 0 ? -0.5 : 0.5));
  }
  in.v[6 * row + 126] = 464.0F;  // half way from the largest to the next power of two
  in.v[6 * row + 127] = -1e-3F;  // between 0 and the smallest
  ExpectAsOnCpu(c, in);
}

TEST_P(RopeAppendOfType, RefusesWhatItCannotDo) {
  RopeAppendParams params;
  params.rotary_dim = 40;
  for (const std::int32_t head_dim : {0, 40, 272}) {
    params.kv.layout = {1, 1, head_dim, 32, GetParam()};
    EXPECT_EQ(LaunchRopeAppend(params, nullptr), cudaErrorInvalidValue) << head_dim;
  }
  params.kv.layout = {1, 1, 32, 32, GetParam()};  // smaller than rotary_dim
  EXPECT_EQ(LaunchRopeAppend(params, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(CanAttend(GetParam(), 80), GetParam() != KvDType::kQ8_0);
  cudaGetLastError();
}

std::string TypeName(const ::testing::TestParamInfo<KvDType>& info) {
  constexpr const char* kNames[] = {"F16", "F32", "Q8_0", "Fp8"};
  return kNames[static_cast<std::size_t>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(Types, RopeAppendOfType,
                         ::testing::Values(KvDType::kF16, KvDType::kF32, KvDType::kQ8_0,
                                           KvDType::kFp8),
                         TypeName);

}  // namespace
}  // namespace millrace::cuda
