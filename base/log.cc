#include "base/log.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>

#include "absl/strings/str_cat.h"

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

// Control characters become escapes, so that one event stays one line.
void AppendEscaped(std::string_view text, std::string* out) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (byte < 0x20) {
      std::array<char, 8> escape{};
      std::snprintf(escape.data(), escape.size(), "\\u%04x", byte);
      out->append(escape.data());
    } else {
      out->push_back(c);
    }
  }
}

std::string TextLine(std::string_view level, std::string_view message,
                     std::initializer_list<LogField> fields) {
  std::string line = absl::StrCat(UtcNow(), " ", std::string(level), " ");
  AppendEscaped(message, &line);
  for (const auto& [key, value] : fields) {
    line.push_back(' ');
    line.append(key);
    line.push_back('=');
    const bool quote = value.find(' ') != std::string::npos || value.empty();
    if (quote) line.push_back('"');
    AppendEscaped(value, &line);
    if (quote) line.push_back('"');
  }
  return line;
}

std::string JsonLine(std::string_view level, std::string_view message,
                     std::initializer_list<LogField> fields) {
  std::string line = absl::StrCat("{\"time\":\"", UtcNow(), "\",\"level\":\"", std::string(level),
                                  "\",\"message\":\"");
  AppendEscaped(message, &line);
  line.push_back('"');
  for (const auto& [key, value] : fields) {
    line.append(",\"");
    AppendEscaped(key, &line);
    line.append("\":\"");
    AppendEscaped(value, &line);
    line.push_back('"');
  }
  line.push_back('}');
  return line;
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

void Log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) {
  if (level < g_level.load(std::memory_order_relaxed)) return;
  const std::string_view name = kLevelNames[static_cast<std::size_t>(level)];
  std::string line = g_format.load(std::memory_order_relaxed) == LogFormat::kJson
                         ? JsonLine(name, message, fields)
                         : TextLine(name, message, fields);
  line.push_back('\n');
  // A log that cannot be written must not stop the service.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace millrace
