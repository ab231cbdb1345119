// The millrace binary: finds the command and hands over. Nothing else happens here.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "cli/commands.h"
#include "cli/version.h"

namespace {

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*run)(int argc, char** argv);
};

constexpr std::array kCommands = {
    Command{"serve", "serves a model over gRPC", millrace::cli::RunServe},
    Command{"client", "streams one request from a server", millrace::cli::RunClient},
    Command{"loadgen", "sends many requests to a server and times them", millrace::cli::RunLoadgen},
    Command{"generate", "generates text in this process", millrace::cli::RunGenerate},
    Command{"inspect", "what a file is, and what it needs", millrace::cli::RunInspect},
    Command{"bench", "measures prefill and decode of a model", millrace::cli::RunBench},
    Command{"logits", "the raw logits of every position of a sequence", millrace::cli::RunLogits},
    Command{"tokenize", "turns text into token ids and back", millrace::cli::RunTokenize},
    Command{"top", "a live terminal view of a server", millrace::cli::RunTop},
    Command{"capacity", "what this machine holds and does for a model", millrace::cli::RunCapacity},
};

void PrintUsage(std::FILE* out) {
  std::fputs(
      "millrace serves Qwen3-MoE language models from GGUF files over gRPC.\n\n"
      "usage: millrace COMMAND [flags]; 'millrace COMMAND --help' explains one\n\n",
      out);
  for (const Command& command : kCommands) {
    std::fprintf(out, "  %-10.*s %.*s\n", static_cast<int>(command.name.size()),
                 command.name.data(), static_cast<int>(command.summary.size()),
                 command.summary.data());
  }
}

}  // namespace

int main(int argc, char** argv) {
  // gRPC's own log lines would stand between ours; whoever wants them sets the variable.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  if (argc < 2) {
    PrintUsage(stderr);
    return 2;
  }
  const std::string_view name = argv[1];
  if (name == "--help" || name == "-h" || name == "help") {
    PrintUsage(stdout);
    return 0;
  }
  if (name == "--version") {
    std::printf("millrace %s\n", millrace::cli::kVersion);
    return 0;
  }
  for (const Command& command : kCommands) {
    if (command.name == name) return command.run(argc - 1, argv + 1);
  }
  std::fprintf(stderr, "millrace: no command '%s'; see 'millrace --help'\n", argv[1]);
  return 2;
}
