#include "base/log.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/printable.h"

namespace millrace {
namespace {

constexpr std::array<std::string_view, 4> kLevelNames = {"debug", "info", "warning", "error"};
std::atomic<LogLevel> g_level{LogLevel::kInfo};
std::atomic<LogFormat> g_format{LogFormat::kText};

std::string UtcNow() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto millis =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 80> text{};
  std::snprintf(text.data(), text.size(), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", utc.tm_year + 1900,
                utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                static_cast<int>(millis));
  return text.data();
}

std::string TextLine(std::string_view level, std::string_view message,
                     std::span<const LogField> fields) {
  std::string line = absl::StrCat(UtcNow(), " ", std::string(level), " ");
  AppendQuotable(message, &line);
  for (const auto& [name, value, number] : fields) {
    line.push_back(' ');
    line.append(name);
    line.push_back('=');
    const bool quote = value.find(' ') != std::string::npos || value.empty();
    if (quote) line.push_back('"');
    AppendQuotable(value, &line);
    if (quote) line.push_back('"');
  }
  return line;
}

std::string JsonLine(std::string_view level, std::string_view message,
                     std::span<const LogField> fields) {
  std::string line = absl::StrCat("{\"time\":\"", UtcNow(), "\",\"level\":\"", std::string(level),
                                  "\",\"message\":\"");
  AppendQuotable(message, &line);
  line.push_back('"');
  for (const auto& [name, value, number] : fields) {
    line.append(",\"");
    AppendQuotable(name, &line);
    line.append(number ? "\":" : "\":\"");
    AppendQuotable(value, &line);
    if (!number) line.push_back('"');
  }
  line.push_back('}');
  return line;
}

std::string Line(LogLevel level, std::string_view message, std::span<const LogField> fields) {
  const std::string_view name = kLevelNames[static_cast<std::size_t>(level)];
  std::string line = g_format.load(std::memory_order_relaxed) == LogFormat::kJson
                         ? JsonLine(name, message, fields)
                         : TextLine(name, message, fields);
  line.push_back('\n');
  return line;
}

// stderr, which may be a pipe that nobody empties.
class Output {
 public:
  void Write(const std::string& line) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (dropped_ > 0 && HasRoom()) {
      const std::array<LogField, 1> count = {LogField("lines", dropped_)};
      Put(Line(LogLevel::kWarning, "lines of the log were dropped, nobody read them", count));
      dropped_ = 0;
    }
    if (dropped_ == 0 && HasRoom()) {
      Put(line);
    } else {
      ++dropped_;
    }
  }

 private:
  // A pipe that polls writable takes a page, as no line is longer, without a wait; we are the only
  // ones who write, under the lock. What cannot be polled is written to and says itself why not.
  static bool HasRoom() {
    pollfd out{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
    return poll(&out, 1, 0) != 0;
  }
  // A log that cannot be written must not stop the service.
  static void Put(const std::string& text) {
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
  }

  Mutex mutex_;
  std::uint64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
};

Output& Stderr() {
  static auto* const output = new Output;  // never destroyed: threads log to the end
  return *output;
}

}  // namespace

absl::StatusOr<LogLevel> ParseLogLevel(std::string_view name) {
  for (std::size_t i = 0; i < kLevelNames.size(); ++i) {
    if (kLevelNames[i] == name) return static_cast<LogLevel>(i);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("log level '", std::string(name), "': want debug, info, warning or error"));
}

absl::StatusOr<LogFormat> ParseLogFormat(std::string_view name) {
  if (name == "text") return LogFormat::kText;
  if (name == "json") return LogFormat::kJson;
  return absl::InvalidArgumentError(
      absl::StrCat("log format '", std::string(name), "': want text or json"));
}

void ConfigureLog(LogLevel level, LogFormat format) {
  g_level = level;
  g_format = format;
}

bool LogEnabled(LogLevel level) { return level >= g_level.load(std::memory_order_relaxed); }

LogField::LogField(std::string_view name, double number)
    : name(name), value(absl::StrCat(number)), number(std::isfinite(number)) {}

void Log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) {
  LogFields(level, message, {fields.begin(), fields.size()});
}

void LogFields(LogLevel level, std::string_view message, std::span<const LogField> fields) {
  if (LogEnabled(level)) Stderr().Write(Line(level, message, fields));
}

}  // namespace millrace
