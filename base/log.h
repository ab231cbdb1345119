// One line of log at a time on stderr, as text or JSON. Never a prompt, a token or a secret. Always
// UTF-8, whatever the fields hold (base/printable.h).
// Thread-safe: a line is written with one write call, and never waits for who reads: a line that a
// full pipe has no room for is dropped, and the next one that is written says how many were.
#ifndef MILLRACE_BASE_LOG_H_
#define MILLRACE_BASE_LOG_H_

#include <concepts>
#include <initializer_list>
#include <span>
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
// Whether a line of `level` would be written: for callers whose fields cost something to make.
bool LogEnabled(LogLevel level);

// A name with a text, or with a number, which JSON shows as one. The name outlives the field.
struct LogField {
  LogField(std::string_view name, std::string text) : name(name), value(std::move(text)) {}
  LogField(std::string_view name, std::integral auto number)
      : name(name), value(std::to_string(number)), number(true) {}
  LogField(std::string_view name, double number);  // six digits; what is not finite is a text

  std::string_view name;
  std::string value;
  bool number = false;
};

// Writes `message` with `fields` when `level` is on:
//   text  2026-11-24T02:00:00.123Z info model loaded tensors=75 seconds=0.021
//   json  {"time":"…","level":"info","message":"model loaded","tensors":75,"seconds":0.021}
void Log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {});
void LogFields(LogLevel level, std::string_view message, std::span<const LogField> fields);

}  // namespace millrace

#endif  // MILLRACE_BASE_LOG_H_
