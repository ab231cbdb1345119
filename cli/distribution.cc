#include "cli/distribution.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace millrace::cli {
namespace {

constexpr double kMax = 1 << 20;

bool IsCount(double value) { return std::isfinite(value) && value >= 1 && value <= kMax; }

}  // namespace

absl::StatusOr<Distribution> Distribution::Parse(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  Distribution out;
  if (parts.size() == 1 && absl::SimpleAtod(parts[0], &out.a_) && IsCount(out.a_)) return out;
  if (parts.size() == 3 && absl::SimpleAtod(parts[1], &out.a_) && IsCount(out.a_) &&
      absl::SimpleAtod(parts[2], &out.b_)) {
    if (parts[0] == "uniform" && IsCount(out.b_) && out.a_ <= out.b_) {
      out.kind_ = Kind::kUniform;
      return out;
    }
    if (parts[0] == "lognormal" && out.b_ >= 0 && out.b_ <= 10) {
      out.kind_ = Kind::kLognormal;
      return out;
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "': want N, uniform:A:B or lognormal:MEDIAN:SIGMA"));
}

std::uint32_t Distribution::Draw(std::mt19937_64* rng) const {
  double value = a_;
  if (kind_ == Kind::kUniform) {
    value = static_cast<double>(std::uniform_int_distribution<std::int64_t>(
        static_cast<std::int64_t>(a_), static_cast<std::int64_t>(b_))(*rng));
  } else if (kind_ == Kind::kLognormal) {
    value = std::lognormal_distribution<double>(std::log(a_), b_)(*rng);
  }
  return static_cast<std::uint32_t>(std::clamp(std::round(value), 1.0, kMax));
}

}  // namespace millrace::cli
