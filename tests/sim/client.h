// One request of the simulation, as its caller sees it, and what it must be answered.
// A value; not thread-safe.
#ifndef MILLRACE_TESTS_SIM_CLIENT_H_
#define MILLRACE_TESTS_SIM_CLIENT_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "scheduler/request.h"
#include "scheduler/token_event.h"
#include "tests/sim/hash_model.h"

namespace millrace::sim {

struct Client {
  explicit Client(Request request_in) : request(std::move(request_in)) {
    for (const std::uint32_t token : request.prompt_tokens) Extend(token);
  }

  // The token that must come next.
  std::uint32_t NextToken(std::uint32_t vocab) const {
    RowSampling row;
    row.params = request.sampling.sampler;
    row.position = generated;
    if (generated < request.stopping.min_new_tokens) row.banned = request.stopping.end_token_ids;
    const auto last = static_cast<std::int32_t>(hashes.size()) - 1;
    const auto earlier = static_cast<std::size_t>(LooksBackAt(hashes.back(), last));
    return TokenAfter(hashes.back(), hashes[earlier], row, vocab);
  }
  void Extend(std::uint32_t token) {
    hashes.push_back(Mix(hashes.empty() ? kBeforeAll : hashes.back(), token));
  }

  Request request;
  std::vector<std::uint64_t> hashes;  // of each position that is known
  std::uint32_t generated = 0;
  std::uint32_t delivered = 0;  // of those, handed to the reader
  bool complete = false;        // nothing may follow
  bool stalled = false;         // reads nothing
  bool ever_stalled = false;
  bool cancelled = false;
  std::uint64_t arrival = 0;         // counts arrivals
  std::uint64_t admission = 0;       // the newest that was seen in a plan
  std::uint32_t generated_then = 0;  // at that time
  std::int32_t scheduled = 0;        // positions that were planned since then
  std::uint32_t preemptions = 0;     // admissions after the first
};

}  // namespace millrace::sim

#endif  // MILLRACE_TESTS_SIM_CLIENT_H_
