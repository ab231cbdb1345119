// Numbers drawn from the distributions that the command line names: N, uniform:A:B,
// lognormal:MEDIAN:SIGMA. A value.
#ifndef MILLRACE_CLI_DISTRIBUTION_H_
#define MILLRACE_CLI_DISTRIBUTION_H_

#include <cstdint>
#include <random>
#include <string>

#include "absl/status/statusor.h"

namespace millrace::cli {

class Distribution {
 public:
  // INVALID_ARGUMENT naming what was given.
  static absl::StatusOr<Distribution> Parse(const std::string& text);

  // At least 1, at most 2^20.
  std::uint32_t Draw(std::mt19937_64* rng) const;

 private:
  enum class Kind : std::uint8_t { kConstant, kUniform, kLognormal };
  Kind kind_ = Kind::kConstant;
  double a_ = 1;  // the number, the least, or the median
  double b_ = 0;  // the greatest, or sigma
};

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_DISTRIBUTION_H_
