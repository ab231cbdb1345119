// Plays the record of a real server (scheduler/trace.h) to the scheduler of the simulation, which
// is the one that serves, and compares what it decides and what comes out. One thread.
#ifndef MILLRACE_TESTS_SIM_REPLAY_H_
#define MILLRACE_TESTS_SIM_REPLAY_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace millrace::sim {

struct ReplayResult {
  std::uint64_t requests = 0;
  std::uint64_t plans = 0;
  std::uint64_t tokens = 0;
  std::string difference;  // the first; empty if there is none
};

// INVALID_ARGUMENT, with the line, if the file is no record; a last line that was cut off is left
// out.
absl::StatusOr<ReplayResult> Replay(const std::string& path);

}  // namespace millrace::sim

#endif  // MILLRACE_TESTS_SIM_REPLAY_H_
