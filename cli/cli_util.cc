#include "cli/cli_util.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/printable.h"

namespace millrace::cli {
namespace {

absl::Status CannotBeWritten(const char* flag, const std::string& path) {
  return absl::InternalError(absl::StrCat(flag, " ", path, ": cannot be written"));
}

}  // namespace

std::optional<int> ParseFlags(CLI::App* app, int argc, char** argv) {
  try {
    app->parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    app->name("millrace " + app->get_name());
    std::fputs(app->help().c_str(), stdout);
    return 0;
  } catch (const CLI::CallForAllHelp&) {
    std::fputs(app->help("", CLI::AppFormatMode::All).c_str(), stdout);
    return 0;
  } catch (const CLI::ConfigError& error) {
    // Its words name the format of the file, then what it did not know.
    std::string name = error.what();
    name = name.substr(name.find_last_of(' ') + 1);
    return Fail(app->get_name(),
                "--config: no flag has the name '" + name + "'; see 'millrace " + app->get_name() +
                    " --help'",
                2);
  } catch (const CLI::ParseError& error) {
    return Fail(app->get_name(),
                std::string(error.what()) + "; see 'millrace " + app->get_name() + " --help'", 2);
  }
  return std::nullopt;
}

int Fail(std::string_view command, std::string_view message, int exit_code) {
  std::string line(message);
  for (char& c : line) {
    if (c == '\n' || c == '\r' || c == '\t') c = ' ';
  }
  // It may be of another's making: a server's, or a file's.
  std::string shown;
  AppendPrintable(line, &shown);
  std::fprintf(stderr, "millrace %.*s: %s\n", static_cast<int>(command.size()), command.data(),
               shown.c_str());
  return exit_code;
}

int Fail(std::string_view command, const absl::Status& status) {
  return Fail(command, std::string_view(status.message().data(), status.message().size()));
}

absl::Status Wrong(std::string_view flag, std::string_view value, std::string_view want) {
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(flag), " ", std::string(value), ": want ", std::string(want)));
}

absl::StatusOr<std::int64_t> ParseAmount(std::string_view flag, const std::string& text,
                                         bool suffixes) {
  if (text == "auto") return 0;
  const std::string_view want =
      suffixes ? "auto or bytes, as 2G or 500M" : "auto or a positive number of tokens";
  std::int64_t value = 0;
  const char* const end = text.data() + text.size();
  auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || value <= 0) return Wrong(flag, text, want);
  if (suffixes && rest != end) {
    const std::string_view units = "KMGT";
    const std::size_t unit = units.find(static_cast<char>(std::toupper(*rest)));
    if (unit == std::string_view::npos) return Wrong(flag, text, want);
    const int shift = 10 * (static_cast<int>(unit) + 1);
    if (value > INT64_MAX >> shift) return Wrong(flag, text, want);
    value <<= shift;
    ++rest;
  }
  if (rest != end) return Wrong(flag, text, want);
  return value;
}

absl::Status CheckWritable(const char* flag, const std::string& path) {
  if (path.empty() || std::ofstream(path, std::ios::app)) return absl::OkStatus();
  return CannotBeWritten(flag, path);
}

absl::Status WriteFile(const char* flag, const std::string& path, const std::string& text) {
  if (path.empty()) return absl::OkStatus();
  std::ofstream file(path);
  file << text;
  file.close();
  return file ? absl::OkStatus() : CannotBeWritten(flag, path);
}

std::string Sized(std::uint64_t bytes) {
  return bytes >= 1'000'000'000 ? absl::StrFormat("%.2f GB", static_cast<double>(bytes) / 1e9)
                                : absl::StrFormat("%.2f MB", static_cast<double>(bytes) / 1e6);
}

ProgressBar::ProgressBar(std::string label) : label_(std::move(label)) {}

ProgressBar::~ProgressBar() {
  if (last_permille_ >= 0) std::fputs("\r\033[K", stderr);
}

void ProgressBar::Update(std::uint64_t done, std::uint64_t total) {
  if (total == 0 || isatty(STDERR_FILENO) == 0) return;
  const int permille =
      static_cast<int>(1000.0 * static_cast<double>(done) / static_cast<double>(total));
  if (permille == last_permille_) return;
  last_permille_ = permille;
  constexpr int kWidth = 40;
  const int filled = permille * kWidth / 1000;
  const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, '.');
  std::fprintf(stderr, "\r\033[K%s [%s] %3d %%", label_.c_str(), bar.c_str(), permille / 10);
}

}  // namespace millrace::cli
