// Requests of the simulation as their callers see them, and what they must be answered.
// Values; not thread-safe.
#ifndef MILLRACE_TESTS_SIM_CLIENT_H_
#define MILLRACE_TESTS_SIM_CLIENT_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "scheduler/request.h"
#include "scheduler/token_event.h"
#include "tests/sim/hash_model.h"

namespace millrace::sim {

// One request.
struct Caller {
  Request request;
  std::uint64_t arrival = 0;    // counts arrivals
  std::uint32_t generated = 0;  // of all answers
  std::uint32_t delivered = 0;  // of those, handed to the reader
  std::uint32_t preemptions = 0;
  std::int32_t answers = 0;  // that have not ended
  bool started = false;      // a step worked on it
  bool stalled = false;      // reads nothing
  bool ever_stalled = false;
  bool cancelled = false;
  std::int32_t gone_for = -1;  // events since its connection was lost; -1: it was not
};

// One answer to a request.
struct Client {
  Client(Caller* caller_in, std::uint32_t index_in) : caller(caller_in), index(index_in) {
    for (const std::uint32_t token : request().prompt_tokens) Extend(token);
    complete = request().stopping.max_new_tokens == 0;
  }

  const Request& request() const { return caller->request; }
  std::int32_t prompt_len() const {
    return static_cast<std::int32_t>(request().prompt_tokens.size());
  }

  // The token that must come next.
  std::uint32_t NextToken(std::uint32_t vocab) const {
    RowSampling row;
    row.params = request().sampling.sampler;
    row.index = index;
    row.position = generated;
    const StoppingParams& stopping = request().stopping;
    if (generated < stopping.min_new_tokens) row.banned = stopping.end_token_ids;
    const auto last = static_cast<std::int32_t>(hashes.size()) - 1;
    const auto earlier = static_cast<std::size_t>(LooksBackAt(hashes.back(), last));
    return TokenAfter(hashes.back(), hashes[earlier], row, vocab);
  }
  void Extend(std::uint32_t token) {
    hashes.push_back(Mix(hashes.empty() ? kBeforeAll : hashes.back(), token));
  }

  Caller* caller;
  std::uint32_t index;
  std::vector<std::uint64_t> hashes;  // of each position that is known
  std::uint32_t generated = 0;
  bool complete = false;             // nothing may follow
  std::uint64_t admission = 0;       // the newest that was seen in a plan
  std::int32_t flushes = 0;          // of the prefix cache, before that
  std::uint32_t generated_then = 0;  // at that time
  std::int32_t scheduled = 0;        // positions that were planned since then
  std::int32_t high_water = 0;       // the most positions ever planned
  std::uint32_t preemptions = 0;     // admissions after the first
};

}  // namespace millrace::sim

#endif  // MILLRACE_TESTS_SIM_CLIENT_H_
