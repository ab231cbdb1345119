// What a load asks for, call by call: drawn from distributions and a seed, or read from a trace. A
// pure function of its options and files, so that a seed asks for the same again.
#ifndef MILLRACE_CLI_LOAD_PLAN_H_
#define MILLRACE_CLI_LOAD_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"

namespace millrace::cli {

struct LoadgenOptions {
  std::string target;
  int concurrency = 0;  // 0: of the loop's kind
  double rate = 0;      // calls a second; 0: a closed loop
  std::string trace;    // file of calls with their times; "": none
  double speed = 1;     // of the trace's time
  int requests = 100;
  std::string prompt_tokens = "uniform:16:256";
  std::string output_tokens = "uniform:16:128";
  double deadline_seconds = 0;
  double cancel_fraction = 0;
  double slow_fraction = 0;
  int tenants = 1;
  std::uint64_t seed = 1;
  std::string json;
  std::string html;

  // Calls come by the clock, whatever becomes of them.
  bool open() const { return rate > 0 || !trace.empty(); }
};

// One call.
struct PlannedCall {
  Duration start{};                   // since the beginning, in an open loop
  std::vector<std::uint32_t> prompt;  // of a recorded call; empty: prompt_tokens random ones
  std::uint32_t prompt_tokens = 0;
  std::uint32_t output_tokens = 0;
  std::uint64_t seed = 0;
  std::string tenant;     // of a recorded call
  int cancel_after = -1;  // messages; -1: never
  bool slow = false;
};

// Calls that fit a model with so many tokens of context. A trace is either lines of
// {"at": seconds, "prompt_tokens": N, "output_tokens": N, "tenant": NAME} (tenant optional), or
// what `serve --record` wrote, whose calls have their own prompts. INVALID_ARGUMENT and NOT_FOUND
// name the flag, or the file and line, that is wrong.
absl::StatusOr<std::vector<PlannedCall>> PlanLoad(const LoadgenOptions& options,
                                                  std::uint32_t context);

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_LOAD_PLAN_H_
