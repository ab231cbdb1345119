// Sends planned calls to a server and times what comes back.
#ifndef MILLRACE_CLI_LOAD_RUNNER_H_
#define MILLRACE_CLI_LOAD_RUNNER_H_

#include <grpcpp/channel.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cli/load_plan.h"
#include "cli/token_timeline.h"

namespace millrace::cli {

// How many workers the first tenant has for each one of another: an attacker beside victims.
inline constexpr int kGreed = 10;

// What became of one call.
struct CallOutcome {
  std::string code;         // of its status
  std::string tenant;       // that it was sent for
  double start = 0;         // seconds since the beginning of the run
  double late = 0;          // seconds after its time, in an open loop: nobody was free to send it
  double first_token = -1;  // seconds since its start; -1: none came
  double total = 0;
  std::uint64_t tokens = 0;
  std::uint64_t contended_tokens = 0;  // that came while calls were still to be sent
  std::vector<double> between;         // seconds between two messages with tokens, by token
};

struct LoadResult {
  std::vector<CallOutcome> calls;
  double seconds = 0;
  TokenTimeline tokens;
};

// The name of one of --tenants.
std::string TenantName(int tenant);

// Each of options.concurrency workers sends the next call when its last one has ended and, in an
// open loop, its time has come. Returns when all have ended. Random prompts are of `vocab` tokens.
LoadResult RunLoad(const std::shared_ptr<grpc::Channel>& channel, const LoadgenOptions& options,
                   const std::vector<PlannedCall>& calls, std::uint32_t vocab);

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_LOAD_RUNNER_H_
