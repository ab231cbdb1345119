// Norm, rotation and append of heads on the (emulated) GPU against the CPU's scalar level, bit for
// bit: what they read, and what must come of it. Test code; not thread-safe.
#ifndef MILLRACE_TESTS_CUDA_ROPE_CASES_H_
#define MILLRACE_TESTS_CUDA_ROPE_CASES_H_

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/rope.h"
#include "kernels/cuda/rope_append.h"
#include "kernels/dequantize.h"
#include "kernels/fp8.h"
#include "kernels/rope_angles.h"
#include "tests/cuda/device_array.h"
#include "tests/kernels/float_test_support.h"

namespace millrace::testing {

inline constexpr float kRopeEps = 1e-6F;
inline constexpr std::int32_t kRopePositions = 600;  // rows of the table of angles
inline constexpr std::int32_t kRopeBlocks = 9;

struct RopeCase {
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

struct RopeInputs {
  std::vector<float> q, k, v;           // rows of tokens, one after the other
  std::vector<float> q_norm, k_norm;    // [head_dim]
  std::vector<float> cosines, sines;    // [kRopePositions][rotary_dim / 2]
  std::vector<std::int32_t> positions;  // [tokens]
  std::vector<std::int32_t> slots;      // [tokens]
};

inline RopeInputs MakeRopeInputs(const RopeCase& c, std::mt19937_64* random) {
  RopeInputs in;
  in.q = RandomFloats(c.q_floats(), random, 3);
  in.k = RandomFloats(c.kv_floats(), random, 3);
  in.v = RandomFloats(c.kv_floats(), random, 3);
  in.q_norm = RandomFloats(static_cast<std::size_t>(c.head_dim), random);
  in.k_norm = RandomFloats(static_cast<std::size_t>(c.head_dim), random);
  const auto pairs = static_cast<std::size_t>(c.rotary_dim / 2);
  in.cosines.resize(kRopePositions * pairs);
  in.sines.resize(kRopePositions * pairs);
  std::vector<double> frequencies;
  for (std::int32_t i = 0; i < c.rotary_dim / 2; ++i) {
    frequencies.push_back(std::pow(1e6, -2.0 * i / c.rotary_dim));
  }
  for (std::size_t p = 0; p < kRopePositions; ++p) {
    RopeAngles(static_cast<std::int64_t>(p), frequencies, 1.0, in.cosines.data() + p * pairs,
               in.sines.data() + p * pairs);
  }
  std::vector<std::int32_t> slots(static_cast<std::size_t>(kRopeBlocks * c.block_size));
  std::iota(slots.begin(), slots.end(), 0);
  std::shuffle(slots.begin(), slots.end(), *random);
  for (std::size_t t = 0; t < static_cast<std::size_t>(c.tokens); ++t) {
    in.positions.push_back(static_cast<std::int32_t>((*random)() % kRopePositions));
    in.slots.push_back(slots[t]);
  }
  in.positions[0] = 0;
  return in;
}

// Every row of q or k as the CPU makes it.
inline void NormAndRotate(const RopeCase& c, const RopeInputs& in, std::int32_t heads,
                          const std::vector<float>& norm, std::vector<float>* rows) {
  for (std::int32_t t = 0; t < c.tokens; ++t) {
    const std::int64_t angles =
        std::int64_t{in.positions[static_cast<std::size_t>(t)]} * (c.rotary_dim / 2);
    for (std::int32_t head = 0; head < heads; ++head) {
      float* row = rows->data() + (t * heads + head) * c.head_dim;
      if (c.norms) {
        cpu::SelectRmsNorm(cpu::Isa::kScalar).fn(row, norm.data(), c.head_dim, kRopeEps, row);
      }
      cpu::SelectRope(cpu::Isa::kScalar)
          .fn(row, c.rotary_dim, c.pairing, in.cosines.data() + angles, in.sines.data() + angles);
    }
  }
}

// Equal bytes, but where both are NaN in the cache's type.
inline void ExpectSameCache(const RopeCase& c, const std::vector<std::byte>& actual,
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

// All but q, k and v in device memory.
class RopeOnDevice {
 public:
  RopeOnDevice(const RopeCase& c, const RopeInputs& in)
      : case_(c),
        in_(in),
        q_norm_(in.q_norm),
        k_norm_(in.k_norm),
        cosines_(in.cosines),
        sines_(in.sines),
        positions_(in.positions),
        slots_(in.slots),
        num_tokens_(std::vector<std::int32_t>{c.tokens}),
        cache_(static_cast<std::size_t>(kRopeBlocks * c.layout().layer_block_bytes())) {
    cache_.Poison();
  }

  // q, k and v and their strides are the caller's.
  cuda::RopeAppendParams Params() {
    cuda::RopeAppendParams params;
    params.num_heads = case_.heads;
    params.q_norm = case_.norms ? q_norm_.data() : nullptr;
    params.k_norm = case_.norms ? k_norm_.data() : nullptr;
    params.eps = kRopeEps;
    params.pairing = case_.pairing;
    params.rotary_dim = case_.rotary_dim;
    params.cosines = cosines_.data();
    params.sines = sines_.data();
    params.positions = positions_.data();
    params.kv_slots = slots_.data();
    params.kv = {cache_.data(), case_.layout()};
    params.num_tokens = num_tokens_.data();
    params.max_tokens = case_.tokens + 2;
    params.chained = true;
    return params;
  }

  // `actual` has the q of token t at t * stride.
  void Expect(const std::vector<float>& actual, std::int64_t stride) {
    const RopeCase& c = case_;
    const std::int64_t q_width = c.heads * c.head_dim;
    const std::int64_t kv_width = c.kv_heads * c.head_dim;
    std::vector<float> q = in_.q;
    std::vector<float> k = in_.k;
    NormAndRotate(c, in_, c.heads, in_.q_norm, &q);
    NormAndRotate(c, in_, c.kv_heads, in_.k_norm, &k);
    std::vector<std::byte> expected_cache(cache_.size(), std::byte{0xFF});
    const KvLayerView view = {expected_cache.data(), c.layout()};
    const auto part = [](const std::vector<float>& of, std::int64_t begin, std::int64_t count) {
      return std::span(of).subspan(static_cast<std::size_t>(begin),
                                   static_cast<std::size_t>(count));
    };
    for (std::int32_t t = 0; t < c.tokens; ++t) {
      SCOPED_TRACE("token " + std::to_string(t));
      const std::int32_t slot = in_.slots[static_cast<std::size_t>(t)];
      ExpectSameBits(part(actual, t * stride, q_width), part(q, t * q_width, q_width));
      for (std::int32_t head = 0; head < c.kv_heads; ++head) {
        const std::int64_t row = t * kv_width + head * c.head_dim;
        cpu::SelectAttention(c.dtype, cpu::Isa::kScalar)
            .append(view, slot / c.block_size, head, slot % c.block_size, k.data() + row,
                    in_.v.data() + row);
      }
    }
    ExpectSameCache(c, cache_.Read(), expected_cache);
  }

 private:
  const RopeCase case_;
  const RopeInputs in_;
  DeviceArray<float> q_norm_, k_norm_, cosines_, sines_;
  DeviceArray<std::int32_t> positions_, slots_, num_tokens_;
  DeviceArray<std::byte> cache_;
};

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_CUDA_ROPE_CASES_H_
