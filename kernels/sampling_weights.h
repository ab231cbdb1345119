// What every backend's sampling must compute alike, in double: the softmax's terms, the random
// number, and how sums over the vocabulary are cut up. Leaf header, host and device (constexpr);
// thread-safe. Compiled without contraction, so the same bits everywhere.
#ifndef MILLRACE_KERNELS_SAMPLING_WEIGHTS_H_
#define MILLRACE_KERNELS_SAMPLING_WEIGHTS_H_

#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/philox.h"

namespace millrace {

// Sums over the vocabulary add up slices of this many tokens, in order; within a slice, value i
// goes to lane i mod kSampleLanes in ascending order, those that fill no whole group of lanes go to
// lane 0, and the lanes are added in order.
inline constexpr std::size_t kSampleSlice = 512;
inline constexpr std::size_t kSampleLanes = 8;

// e^x for x <= 0 with a relative error below 1e-12, in plain operations that the compiler
// vectorises and that give the same bits on every machine, which libm does not promise. 0 below
// -700.
constexpr double ExpOfNonPositive(double x) {
  constexpr double kInverseLn2 = 1.4426950408889634;
  constexpr double kLn2High = 0x1.62e42fefap-1;  // so short that its product with n is exact
  constexpr double kLn2Low = 0x1.cf79abc9e3b39p-40;
  constexpr double kShift = 0x1.8p52;  // adding it rounds to an integer in the low bits
  constexpr double kLowest = -700.0;
  const double clamped = x > kLowest ? x : kLowest;
  const double shifted = clamped * kInverseLn2 + kShift;
  const double n = shifted - kShift;
  const double r = (clamped - n * kLn2High) - n * kLn2Low;
  // Taylor: the first term left out is r^11 / 11! < 3e-13.
  double p = 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const std::uint64_t bits =
      std::bit_cast<std::uint64_t>(p) + (std::bit_cast<std::uint64_t>(shifted) << 52);
  return x > kLowest ? std::bit_cast<double>(bits) : 0.0;
}

// The softmax's terms: exp((logit - max) / temperature), so 1 for the best token.
struct SampleWeights {
  double max;
  double temperature;
  constexpr double operator()(float logit) const {
    return ExpOfNonPositive((static_cast<double>(logit) - max) / temperature);
  }
};

// The number that kernels/sampling.h's UniformDraw returns.
constexpr double UniformNumber(std::uint64_t seed, std::uint32_t index, std::uint32_t position) {
  const auto bits = Philox4x32({index, position, 0, 0}, {static_cast<std::uint32_t>(seed),
                                                         static_cast<std::uint32_t>(seed >> 32)});
  const std::uint64_t word = (std::uint64_t{bits[0]} << 32) | bits[1];
  return static_cast<double>(word >> 11) * 0x1p-53;
}

}  // namespace millrace

#endif  // MILLRACE_KERNELS_SAMPLING_WEIGHTS_H_
