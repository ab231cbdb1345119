// The terminal while `millrace top` has it: another screen, no echo, no cursor; and everything as
// it was afterwards, also when a signal ends the command. One at a time, driven by one thread.
#ifndef MILLRACE_CLI_TOP_TERMINAL_H_
#define MILLRACE_CLI_TOP_TERMINAL_H_

#include <termios.h>

#include <vector>

#include "base/clock.h"
#include "cli/top_view.h"

namespace millrace::cli {

// The size of the terminal that stdout is, or 80 columns and no end of rows where it is none.
TopSize OutputSize();

class TopTerminal {
 public:
  // REQUIRES: stdin and stdout are terminals.
  TopTerminal();
  ~TopTerminal();
  TopTerminal(const TopTerminal&) = delete;
  TopTerminal& operator=(const TopTerminal&) = delete;

  void Show(const std::vector<TopLine>& lines);

  // Waits until `until`; true, at once, when somebody wants to leave: q, Ctrl-C or another signal
  // that ends a process, or a terminal that is gone.
  bool WaitForEnd(TimePoint until);

 private:
  termios before_{};
};

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_TOP_TERMINAL_H_
