#include "cli/top_terminal.h"

#include <fcntl.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace millrace::cli {
namespace {

// Of those that end a process and are not a fault of its own.
constexpr std::array<int, 4> kEndingSignals = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
constexpr std::string_view kEnter = "\033[?1049h\033[?25l";  // the other screen, no cursor
constexpr std::string_view kLeave = "\033[0m\033[?25h\033[?1049l";

// The handler writes here and the loop polls it, so that no signal falls between two waits.
std::array<int, 2> end_pipe = {-1, -1};

void OnSignal(int) {
  const int saved = errno;
  const char byte = 0;
  [[maybe_unused]] const ssize_t written = write(end_pipe[1], &byte, 1);
  errno = saved;
}

// A terminal that is gone is noticed by WaitForEnd.
void WriteAll(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

std::string_view Code(Ink ink) {
  switch (ink) {
    case Ink::kTitle:
      return "\033[7m";
    case Ink::kGood:
      return "\033[32m";
    case Ink::kWarning:
      return "\033[33m";
    case Ink::kBad:
      return "\033[31m";
    case Ink::kPlain:
      break;
  }
  return "";
}

}  // namespace

TopSize OutputSize() {
  TopSize size;
  size.rows = SIZE_MAX;
  winsize window{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0 && window.ws_row > 0) {
    size.columns = window.ws_col;
    size.rows = window.ws_row;
  }
  std::setlocale(LC_CTYPE, "");
  size.utf8 = std::strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
  return size;
}

TopTerminal::TopTerminal() {
  tcgetattr(STDIN_FILENO, &before_);
  termios raw = before_;
  raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
  tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw);
  if (pipe2(end_pipe.data(), O_CLOEXEC | O_NONBLOCK) == 0) {
    struct sigaction action {};
    action.sa_handler = OnSignal;
    for (const int signal : kEndingSignals) sigaction(signal, &action, nullptr);
  }
  WriteAll(kEnter);
}

TopTerminal::~TopTerminal() {
  WriteAll(kLeave);
  tcsetattr(STDIN_FILENO, TCSAFLUSH, &before_);
  for (const int signal : kEndingSignals) std::signal(signal, SIG_DFL);
}

void TopTerminal::Show(const std::vector<TopLine>& lines) {
  // Over the last picture, line by line, rather than after a clear: nothing flickers. A line is
  // erased before it is written: behind a text as wide as the terminal the cursor still stands on
  // its last character, and an erase would take that away.
  std::string out = "\033[H";
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += "\r\n";
    out += i + 1 < lines.size() ? "\033[K" : "\033[J";
    const std::string_view code = Code(lines[i].ink);
    out += code;
    out += lines[i].text;
    if (!code.empty()) out += "\033[0m";
  }
  WriteAll(out);
}

bool TopTerminal::WaitForEnd(TimePoint until) {
  const SteadyClock clock;
  std::array<pollfd, 2> ends = {pollfd{STDIN_FILENO, POLLIN, 0}, pollfd{end_pipe[0], POLLIN, 0}};
  for (TimePoint now = clock.Now(); now < until; now = clock.Now()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - now);
    const int ready = poll(ends.data(), ends.size(), static_cast<int>(left.count()));
    if (ready <= 0) continue;  // time is up, or a signal that says so in the pipe
    if (ends[1].revents != 0) return true;
    char key = 0;
    if (read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q') return true;
  }
  return false;
}

}  // namespace millrace::cli
