#include "kernels/cpu/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/reference/rope.h"
#include "kernels/rope_angles.h"
#include "tests/kernels/float_test_support.h"

namespace millrace::cpu {
namespace {

using testing::CanRun;
using testing::kUnit;

constexpr RopePairing kPairings[] = {RopePairing::kNeox, RopePairing::kInterleaved};
constexpr std::int32_t kRotaryDims[] = {2, 34, 40, 64, 128};

std::vector<double> Frequencies(std::int32_t rotary_dim) {
  std::vector<double> out;
  for (std::int32_t i = 0; i < rotary_dim / 2; ++i) {
    out.push_back(std::pow(1e6, -2.0 * i / rotary_dim));
  }
  return out;
}

struct Angles {
  Angles(std::int64_t position, const std::vector<double>& frequencies)
      : cosines(frequencies.size()), sines(frequencies.size()) {
    RopeAngles(position, frequencies, 1.0, cosines.data(), sines.data());
  }
  std::vector<float> cosines;
  std::vector<float> sines;
};

TEST(Rope, GivesTheSameBitsOnEveryLevelAndStaysNearTheTruth) {
  std::mt19937_64 random(1);
  for (const RopePairing pairing : kPairings) {
    for (const std::int32_t rotary_dim : kRotaryDims) {
      SCOPED_TRACE(rotary_dim);
      const std::vector<float> row = testing::RandomFloats(130, &random);
      const std::vector<double> frequencies = Frequencies(rotary_dim);
      constexpr std::int64_t kPosition = 40959;
      const Angles angles(kPosition, frequencies);
      std::vector<float> expected = row;
      SelectRope(Isa::kScalar)
          .fn(expected.data(), rotary_dim, pairing, angles.cosines.data(), angles.sines.data());
      const std::vector<double> truth = reference::Rope(row, kPosition, frequencies, pairing);
      for (std::size_t i = 0; i < row.size(); ++i) {
        // Roundings of cosine and sine, of the product, of the fma; |a| + |b| of the pair is below
        // the sum of the two largest values, here 16.
        ASSERT_NEAR(expected[i], truth[i], 3 * kUnit * 16) << i;
      }
      for (const RopeVariant& variant : RopeVariants()) {
        if (!CanRun(variant.isa)) continue;
        SCOPED_TRACE(variant.name);
        std::vector<float> actual = row;
        variant.fn(actual.data(), rotary_dim, pairing, angles.cosines.data(), angles.sines.data());
        testing::ExpectSameBits(actual, expected);
      }
    }
  }
}

TEST(Rope, LeavesElementsBeyondTheRotaryDimensionAlone) {
  std::mt19937_64 random(2);
  const std::vector<float> row = testing::RandomFloats(64, &random);
  const Angles angles(7, Frequencies(40));
  for (const RopeVariant& variant : RopeVariants()) {
    if (!CanRun(variant.isa)) continue;
    std::vector<float> actual = row;
    variant.fn(actual.data(), 40, RopePairing::kNeox, angles.cosines.data(), angles.sines.data());
    for (std::size_t i = 0; i < 40; ++i) EXPECT_NE(actual[i], row[i]) << i;
    testing::ExpectSameBits(std::span(actual).subspan(40), std::span(row).subspan(40));
  }
}

TEST(Rope, TurnsNothingAtPositionZero) {
  std::mt19937_64 random(3);
  const std::vector<float> row = testing::RandomFloats(128, &random);
  const Angles angles(0, Frequencies(128));
  for (const RopePairing pairing : kPairings) {
    std::vector<float> actual = row;
    SelectRope(DetectIsa())
        .fn(actual.data(), 128, pairing, angles.cosines.data(), angles.sines.data());
    testing::ExpectSameBits(actual, row);
  }
}

}  // namespace
}  // namespace millrace::cpu
