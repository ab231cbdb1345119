#include "runtime/sampling/sampling_params.h"

#include <cmath>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace millrace {
namespace {

absl::Status Wrong(std::string_view field, std::string_view is, std::string_view want) {
  return absl::InvalidArgumentError(absl::StrCat("sampling.", std::string(field), " is ",
                                                 std::string(is), "; want ", std::string(want)));
}

// A finite float between two bounds; each bound may be part of the range or not.
struct FloatRange {
  std::string_view field;
  float SamplerParams::*member;
  float min, max;
  bool min_allowed;
  std::string_view want;
};

constexpr float kUnbounded = 3.4e38F;

constexpr FloatRange kFloatRanges[] = {
    {"temperature", &SamplerParams::temperature, 0, kUnbounded, true, "a finite number >= 0"},
    {"top_p", &SamplerParams::top_p, 0, 1, false, "0 < top_p <= 1"},
    {"min_p", &SamplerParams::min_p, 0, 1, true, "0 <= min_p <= 1"},
    {"repetition_penalty", &SamplerParams::repetition_penalty, 0, kUnbounded, false,
     "a finite number > 0"},
    {"presence_penalty", &SamplerParams::presence_penalty, -2, 2, true, "-2 to 2"},
    {"frequency_penalty", &SamplerParams::frequency_penalty, -2, 2, true, "-2 to 2"},
};

absl::Status CheckId(std::string_view field, std::uint32_t id, std::uint32_t vocab_size) {
  if (id < vocab_size) return absl::OkStatus();
  return Wrong(field, absl::StrCat("naming token ", id), absl::StrCat("ids below ", vocab_size));
}

}  // namespace

absl::Status ValidateSamplingParams(const SamplingParams& params, std::uint32_t vocab_size) {
  for (const FloatRange& range : kFloatRanges) {
    const float value = params.sampler.*range.member;
    const bool above = range.min_allowed ? value >= range.min : value > range.min;
    if (!(std::isfinite(value) && above && value <= range.max)) {
      return Wrong(range.field, absl::StrCat(value), range.want);
    }
  }
  for (const auto& [id, bias] : params.logit_bias) {
    MILLRACE_RETURN_IF_ERROR(CheckId("logit_bias", id, vocab_size));
    if (!std::isfinite(bias)) return Wrong("logit_bias", absl::StrCat(bias), "a finite number");
  }
  for (const std::uint32_t id : params.allowed_token_ids) {
    MILLRACE_RETURN_IF_ERROR(CheckId("allowed_token_ids", id, vocab_size));
  }
  if (params.num_logprobs < -1 || params.num_logprobs > kMaxLogprobs) {
    return absl::InvalidArgumentError(
        absl::StrCat("output.logprobs is ", params.num_logprobs, "; want 0 to ", kMaxLogprobs));
  }
  return absl::OkStatus();
}

}  // namespace millrace
