#include "cli/cli_util.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

namespace millrace::cli {

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
    if (c == '\n' || c == '\r') c = ' ';
  }
  std::fprintf(stderr, "millrace %.*s: %s\n", static_cast<int>(command.size()), command.data(),
               line.c_str());
  return exit_code;
}

int Fail(std::string_view command, const absl::Status& status) {
  return Fail(command, std::string_view(status.message().data(), status.message().size()));
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
