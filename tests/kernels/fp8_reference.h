// What the tests of the type fp8 compare with: the format by its formula and the nearest value by
// search, in double, where both are exact.
#ifndef MILLRACE_TESTS_KERNELS_FP8_REFERENCE_H_
#define MILLRACE_TESTS_KERNELS_FP8_REFERENCE_H_

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

namespace millrace::testing {

inline constexpr int kFp8Codes = 127;  // numbers without a sign, in ascending order

inline double Fp8Magnitude(int code) {
  const int exponent = code / 8;
  const int mantissa = code % 8;
  return exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
}

// The code without a sign of the number that is nearest to `value`, which is not NaN.
inline int NearestFp8Code(float value) {
  static const auto kMagnitudes = [] {
    std::array<double, kFp8Codes> all;
    for (int code = 0; code < kFp8Codes; ++code) {
      all[static_cast<std::size_t>(code)] = Fp8Magnitude(code);
    }
    return all;
  }();
  const double magnitude = std::fabs(static_cast<double>(value));
  if (magnitude >= kMagnitudes.back()) return kFp8Codes - 1;
  const auto* above = std::upper_bound(kMagnitudes.begin(), kMagnitudes.end(), magnitude);
  const auto* below = above - 1;
  const int code = static_cast<int>(below - kMagnitudes.begin());
  const double up = *above - magnitude;
  const double down = magnitude - *below;
  if (up == down) return code + code % 2;
  return up < down ? code + 1 : code;
}

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_KERNELS_FP8_REFERENCE_H_
