// Norm, rotation and append of heads on the (emulated) GPU against the CPU's scalar level, bit for
// bit.
#include "kernels/cuda/rope_append.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/rope.h"
#include "kernels/dequantize.h"
#include "kernels/fp8.h"
#include "kernels/rope_angles.h"
#include "tests/cuda/device_array.h"
#include "tests/kernels/float_test_support.h"
#include "tests/kernels/fp8_reference.h"

namespace millrace::cuda {
namespace {

using testing::DeviceArray;
using testing::ExpectSameBits;
using testing::kInfinity;
using testing::kNan;
using testing::RandomFloats;

constexpr float kEps = 1e-6F;
constexpr std::int32_t kPositions = 600;  // rows of the table of angles
constexpr std::int32_t kBlocks = 9;

struct Case {
  KvDType dtype;
  std::int32_t head_dim;
  std::int32_t heads;
  std::int32_t kv_heads;
  std::int32_t rotary_dim;
  std::int32_t block_size = 32;
  RopePairing pairing = RopePairing::kNeox;
  bool norms = true;
  std::int32_t tokens = 3;

  KvLayout layout() const { return {1, kv_heads, head_dim, block_size, dtype}; }
  std::size_t q_floats() const { return static_cast<std::size_t>(tokens * heads * head_dim); }
  std::size_t kv_floats() const { return static_cast<std::size_t>(tokens * kv_heads * head_dim); }
};

struct Inputs {
  std::vector<float> q, k, v;           // rows of tokens, one after the other
  std::vector<float> q_norm, k_norm;    // [head_dim]
  std::vector<float> cosines, sines;    // [kPositions][rotary_dim / 2]
  std::vector<std::int32_t> positions;  // [tokens]
  std::vector<std::int32_t> slots;      // [tokens]
};

Inputs MakeInputs(const Case& c, std::mt19937_64* random) {
  Inputs in;
  in.q = RandomFloats(c.q_floats(), random, 3);
  in.k = RandomFloats(c.kv_floats(), random, 3);
  in.v = RandomFloats(c.kv_floats(), random, 3);
  in.q_norm = RandomFloats(static_cast<std::size_t>(c.head_dim), random);
  in.k_norm = RandomFloats(static_cast<std::size_t>(c.head_dim), random);
  const auto pairs = static_cast<std::size_t>(c.rotary_dim / 2);
  in.cosines.resize(kPositions * pairs);
  in.sines.resize(kPositions * pairs);
  std::vector<double> frequencies;
  for (std::int32_t i = 0; i < c.rotary_dim / 2; ++i) {
    frequencies.push_back(std::pow(1e6, -2.0 * i / c.rotary_dim));
  }
  for (std::size_t p = 0; p < kPositions; ++p) {
    RopeAngles(static_cast<std::int64_t>(p), frequencies, 1.0, in.cosines.data() + p * pairs,
               in.sines.data() + p * pairs);
  }
  std::vector<std::int32_t> slots(static_cast<std::size_t>(kBlocks * c.block_size));
  std::iota(slots.begin(), slots.end(), 0);
  std::shuffle(slots.begin(), slots.end(), *random);
  for (std::size_t t = 0; t < static_cast<std::size_t>(c.tokens); ++t) {
    in.positions.push_back(static_cast<std::int32_t>((*random)() % kPositions));
    in.slots.push_back(slots[t]);
  }
  in.positions[0] = 0;
  return in;
}

// Every row of q or k as the CPU makes it.
void NormAndRotate(const Case& c, const Inputs& in, std::int32_t heads,
                   const std::vector<float>& norm, std::vector<float>* rows) {
  for (std::int32_t t = 0; t < c.tokens; ++t) {
    const std::int64_t angles =
        std::int64_t{in.positions[static_cast<std::size_t>(t)]} * (c.rotary_dim / 2);
    for (std::int32_t head = 0; head < heads; ++head) {
      float* row = rows->data() + (t * heads + head) * c.head_dim;
      if (c.norms) {
        cpu::SelectRmsNorm(cpu::Isa::kScalar).fn(row, norm.data(), c.head_dim, kEps, row);
      }
      cpu::SelectRope(cpu::Isa::kScalar)
          .fn(row, c.rotary_dim, c.pairing, in.cosines.data() + angles, in.sines.data() + angles);
    }
  }
}

// Equal bytes, but where both are NaN in the cache's type.
void ExpectSameCache(const Case& c, const std::vector<std::byte>& actual,
                     const std::vector<std::byte>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  // A value, or a block of q8_0, and how many of its bytes say whether it is NaN.
  const auto step = static_cast<std::size_t>(KvRowBytes(c.dtype, KvHeadDimMultiple(c.dtype)));
  const std::size_t scale = c.dtype == KvDType::kQ8_0 ? 2 : step;
  const auto floats_at = [&](const std::vector<std::byte>& bytes, std::size_t at) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, bytes.data() + at, scale);
    if (c.dtype == KvDType::kF32) return std::bit_cast<float>(bits);
    if (c.dtype == KvDType::kFp8) return Fp8ToFloat({static_cast<std::uint8_t>(bits)});
    return HalfToFloat(static_cast<HalfBits>(bits));
  };
  for (std::size_t at = 0; at < actual.size(); at += step) {
    const bool both_nan = std::isnan(floats_at(actual, at)) && std::isnan(floats_at(expected, at));
    const std::size_t from = both_nan ? at + scale : at;
    ASSERT_EQ(std::memcmp(actual.data() + from, expected.data() + from, at + step - from), 0)
        << "byte " << at << ": " << floats_at(actual, at) << " and " << floats_at(expected, at);
  }
}

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
  const auto cache_bytes = static_cast<std::size_t>(kBlocks * c.layout().layer_block_bytes());
  DeviceArray<float> device_qkv(qkv);
  DeviceArray<float> q_norm(in.q_norm), k_norm(in.k_norm), cosines(in.cosines), sines(in.sines);
  DeviceArray<std::int32_t> positions(in.positions), slots(in.slots);
  DeviceArray<std::int32_t> num_tokens(std::vector<std::int32_t>{c.tokens});
  DeviceArray<std::byte> cache(cache_bytes);
  cache.Poison();
  RopeAppendParams params;
  params.q = device_qkv.data();
  params.k = device_qkv.data() + q_width;
  params.v = device_qkv.data() + q_width + kv_width;
  params.q_stride = params.k_stride = params.v_stride = width;
  params.num_heads = c.heads;
  params.q_norm = c.norms ? q_norm.data() : nullptr;
  params.k_norm = c.norms ? k_norm.data() : nullptr;
  params.eps = kEps;
  params.pairing = c.pairing;
  params.rotary_dim = c.rotary_dim;
  params.cosines = cosines.data();
  params.sines = sines.data();
  params.positions = positions.data();
  params.kv_slots = slots.data();
  params.kv = {cache.data(), c.layout()};
  params.num_tokens = num_tokens.data();
  params.max_tokens = c.tokens + 2;
  params.chained = true;
  ASSERT_EQ(LaunchRopeAppend(params, nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  ASSERT_EQ(cudaGetLastError(), cudaSuccess);

  std::vector<float> q = in.q;
  std::vector<float> k = in.k;
  NormAndRotate(c, in, c.heads, in.q_norm, &q);
  NormAndRotate(c, in, c.kv_heads, in.k_norm, &k);
  const std::vector<float> actual = device_qkv.Read();
  std::vector<std::byte> expected_cache(cache_bytes, std::byte{0xFF});
  const KvLayerView view = {expected_cache.data(), c.layout()};
  for (std::int32_t t = 0; t < c.tokens; ++t) {
    SCOPED_TRACE("token " + std::to_string(t));
    const auto at = static_cast<std::size_t>(t);
    ExpectSameBits(std::span(actual).subspan(at * static_cast<std::size_t>(width),
                                             static_cast<std::size_t>(q_width)),
                   std::span(q).subspan(at * static_cast<std::size_t>(q_width),
                                        static_cast<std::size_t>(q_width)));
    for (std::int32_t head = 0; head < c.kv_heads; ++head) {
      const std::int64_t row = t * kv_width + head * c.head_dim;
      cpu::SelectAttention(c.dtype, cpu::Isa::kScalar)
          .append(view, in.slots[at] / c.block_size, head, in.slots[at] % c.block_size,
                  k.data() + row, in.v.data() + row);
    }
  }
  ExpectSameCache(c, cache.Read(), expected_cache);
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
    if (CanAttend(c.dtype, c.head_dim)) ExpectAsOnCpu(c, MakeInputs(c, &random));
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
  Inputs in = MakeInputs(c, &random);
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
