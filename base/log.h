// One line of log at a time on stderr, as text or JSON. Never a prompt, a token or a secret.
// Thread-safe: a line is written with one write call.
#ifndef MILLRACE_BASE_LOG_H_
#define MILLRACE_BASE_LOG_H_

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"

namespace millrace {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

absl::StatusOr<LogLevel> ParseLogLevel(std::string_view name);    // debug info warning error
absl::StatusOr<LogFormat> ParseLogFormat(std::string_view name);  // text json

// Process wide; set once before threads start.
void ConfigureLog(LogLevel level, LogFormat format);

using LogField = std::pair<std::string_view, std::string>;

// Writes `message` with `fields` when `level` is on:
//   text  2026-11-24T02:00:00.123Z info model loaded tensors=75 seconds=0.021
//   json  {"time":"…","level":"info","message":"model loaded","tensors":"75","seconds":"0.021"}
void Log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {});

}  // namespace millrace

#endif  // MILLRACE_BASE_LOG_H_
