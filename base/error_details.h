// What a status says beside its code and message, for programs: a reason, and when to come again.
// Every wire protocol puts it where its clients look. Pure functions.
#ifndef MILLRACE_BASE_ERROR_DETAILS_H_
#define MILLRACE_BASE_ERROR_DETAILS_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "base/clock.h"

namespace millrace {

// Reasons of RESOURCE_EXHAUSTED.
inline constexpr std::string_view kQueueFull = "QUEUE_FULL";
inline constexpr std::string_view kDeadlineUnreachable = "DEADLINE_UNREACHABLE";

// The same status with a reason and the time after which another try makes sense, kept in whole
// milliseconds, at least one. REQUIRES: `status` is not OK.
absl::Status WithRetry(absl::Status status, std::string_view reason, Duration after);

// nullopt, or "", if nothing was set.
std::optional<Duration> RetryAfter(const absl::Status& status);
std::string Reason(const absl::Status& status);

}  // namespace millrace

#endif  // MILLRACE_BASE_ERROR_DETAILS_H_
