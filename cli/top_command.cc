// `millrace top`: a server's load in a terminal, once a second; or one picture of it.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "cli/cli_util.h"
#include "cli/commands.h"
#include "cli/top_source.h"
#include "cli/top_terminal.h"
#include "cli/top_view.h"
#include "service/http_server.h"

namespace millrace::cli {
namespace {

constexpr char kName[] = "top";
constexpr auto kPeriod = std::chrono::seconds(1);
// What a question may take: shorter than the second between two pictures.
constexpr auto kPatience = std::chrono::milliseconds(900);
// With --once nobody asks again, and the question includes the connection.
constexpr auto kPatienceOnce = std::chrono::seconds(5);

// One plain picture, for scripts.
int PrintOnce(TopSource* source) {
  const TopState& state = source->Poll();
  if (!state.trouble.empty()) return Fail(kName, state.trouble);
  TopSize size = OutputSize();
  size.rows = SIZE_MAX;
  for (const TopLine& line : DrawTop(state, size)) std::puts(line.text.c_str());
  return 0;
}

int Watch(TopSource* source) {
  const SteadyClock clock;
  TopTerminal terminal;
  for (TimePoint next = clock.Now();;) {
    const TopState& state = source->Poll();
    terminal.Show(DrawTop(state, OutputSize()));
    // A poll that took longer is not made up for. A key that came meanwhile still counts.
    next = std::max(next + kPeriod, clock.Now() + std::chrono::milliseconds(1));
    if (terminal.WaitForEnd(next)) return 0;
  }
}

}  // namespace

int RunTop(int argc, char** argv) {
  CLI::App app(
      "Shows a server live: tokens a second, who runs and waits, the KV cache; with --metrics also "
      "latencies and errors. q or Ctrl-C leaves",
      kName);
  app.footer(
      "running, waiting: sequences now. blocks cached: kept for prefixes that come again, free for "
      "others. Latencies and errors are of the last 60 seconds, as far as it has watched; with "
      "--once, since the server's start.\n"
      "example: millrace top --target localhost:50051 --metrics localhost:9400");
  std::string target;
  std::string metrics;
  bool once = false;
  app.add_option("--target", target, "HOST:PORT of the server")->required();
  app.add_option("--metrics", metrics, "HOST:PORT of its metrics page");
  app.add_flag("--once", once,
               "Prints one picture without colours and ends; exit 1 if nobody answers");
  if (const auto code = ParseFlags(&app, argc, argv)) return *code;
  if (!metrics.empty()) {
    const absl::Status status = ParseHostPort(metrics).status();
    if (!status.ok())
      return Fail(kName, absl::StrCat("--metrics ", std::string(status.message())), 2);
  }
  if (!once && (isatty(STDIN_FILENO) == 0 || isatty(STDOUT_FILENO) == 0)) {
    return Fail(kName, "this is no terminal; --once prints one picture", 2);
  }
  TopSource source(target, metrics, once ? kPatienceOnce : kPatience);
  return once ? PrintOnce(&source) : Watch(&source);
}

}  // namespace millrace::cli
