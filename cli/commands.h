// The commands of the binary, one file each. A command takes its own arguments (argv[0] is its
// name) and returns the exit code: 0, 1 for a failure, 2 for bad usage. Errors are one line on
// stderr.
#ifndef MILLRACE_CLI_COMMANDS_H_
#define MILLRACE_CLI_COMMANDS_H_

namespace millrace::cli {

int RunServe(int argc, char** argv);
int RunGenerate(int argc, char** argv);
int RunLogits(int argc, char** argv);
int RunTokenize(int argc, char** argv);
int RunInspect(int argc, char** argv);
int RunBench(int argc, char** argv);
int RunClient(int argc, char** argv);
int RunLoadgen(int argc, char** argv);
int RunTop(int argc, char** argv);
int RunCapacity(int argc, char** argv);

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_COMMANDS_H_
