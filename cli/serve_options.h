// The flags of `millrace serve`: the same names in a file (--config) and in the environment
// (MILLRACE_LISTEN for --listen); the command line wins.
#ifndef MILLRACE_CLI_SERVE_OPTIONS_H_
#define MILLRACE_CLI_SERVE_OPTIONS_H_

#include <string>
#include <variant>

#include "base/clock.h"
#include "base/log.h"
#include "runtime/runner/model_loader.h"
#include "scheduler/engine.h"
#include "service/server.h"

namespace millrace::cli {

struct ServeOptions {
  LoadOptions load;
  SchedulerOptions scheduler;
  ServerOptions server;
  std::string model_name;          // empty: the file's
  std::string chat_template_file;  // empty: the file's own
  Duration drain{};
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
};

// The options, or the exit code when there is nothing left to do (--help, bad usage).
std::variant<ServeOptions, int> ParseServeOptions(int argc, char** argv);

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_SERVE_OPTIONS_H_
