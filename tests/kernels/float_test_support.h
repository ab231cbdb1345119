// What the tests of float kernels share: reproducible random rows and comparison by bits.
#ifndef MILLRACE_TESTS_KERNELS_FLOAT_TEST_SUPPORT_H_
#define MILLRACE_TESTS_KERNELS_FLOAT_TEST_SUPPORT_H_

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "kernels/cpu/isa.h"

namespace millrace::testing {

inline constexpr double kUnit = 0x1p-24;  // the largest relative error of one f32 rounding
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

inline std::vector<float> RandomFloats(std::size_t n, std::mt19937_64* random, float spread = 1) {
  std::normal_distribution<float> normal(0.0F, spread);
  std::vector<float> out(n);
  for (float& value : out) value = normal(*random);
  return out;
}

// The numerics promise equal bits but for the payload of a NaN.
inline void ExpectSameBits(std::span<const float> actual, std::span<const float> expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(actual[i]) && std::isnan(expected[i])) continue;
    ASSERT_EQ(std::bit_cast<std::uint32_t>(actual[i]), std::bit_cast<std::uint32_t>(expected[i]))
        << "element " << i << ": " << actual[i] << " and " << expected[i];
  }
}

inline bool CanRun(cpu::Isa isa) { return cpu::Supports(isa); }

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_KERNELS_FLOAT_TEST_SUPPORT_H_
