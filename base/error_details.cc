#include "base/error_details.h"

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"

namespace millrace {
namespace {

constexpr char kReasonPayload[] = "millrace/reason";
constexpr char kRetryPayload[] = "millrace/retry-after-ms";

}  // namespace

absl::Status WithRetry(absl::Status status, std::string_view reason, Duration after) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(after).count();
  status.SetPayload(kRetryPayload, absl::Cord(std::to_string(std::max<std::int64_t>(1, ms))));
  status.SetPayload(kReasonPayload, absl::Cord(std::string(reason)));
  return status;
}

std::optional<Duration> RetryAfter(const absl::Status& status) {
  const auto payload = status.GetPayload(kRetryPayload);
  std::int64_t ms = 0;
  if (!payload || !absl::SimpleAtoi(std::string(*payload), &ms)) return std::nullopt;
  return std::chrono::milliseconds(ms);
}

std::string Reason(const absl::Status& status) {
  const auto payload = status.GetPayload(kReasonPayload);
  return payload ? std::string(*payload) : std::string();
}

}  // namespace millrace
