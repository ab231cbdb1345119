// The progress of one request: mutable, owned by the scheduler, touched by the engine thread only.
#ifndef MILLRACE_SCHEDULER_SEQUENCE_H_
#define MILLRACE_SCHEDULER_SEQUENCE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "kernels/sampling.h"
#include "runtime/kv/block_table.h"
#include "scheduler/request.h"

namespace millrace {

enum class SequenceState : std::uint8_t {
  kWaiting,    // in the queue, nothing computed
  kRunning,    // has blocks, is scheduled
  kPaused,     // has blocks, its reader is behind
  kPreempted,  // in the queue again, blocks given back; what it generated is kept and computed
               // again
};

// There is no prefill and no decode: computed positions chase known tokens.
struct Sequence {
  Request request;
  SequenceState state = SequenceState::kWaiting;
  std::uint64_t admission = 0;  // order of the newest admission: the largest is the youngest

  std::vector<std::uint32_t> tokens;  // prompt and generated ones that are known
  std::int32_t prompt_len = 0;
  std::int32_t scheduled = 0;   // positions that launched steps have computed or will
  std::int32_t computed = 0;    // positions whose keys and values are in its blocks
  std::int32_t pending = 0;     // tokens that steps in flight will sample
  std::int32_t high_water = 0;  // the most positions ever scheduled: below it is recomputation
  BlockTable blocks;

  // The step and row that samples the newest pending token.
  StepTicket pending_ticket;
  std::int32_t pending_row = 0;

  std::uint64_t delivered = 0;  // tokens that the client has been handed
  TimePoint behind_since{};     // its reader has fallen behind; the epoch: it has not
  TimePoint first_scheduled{};  // the epoch: not yet
  TimePoint first_token{};
  std::uint32_t preemptions = 0;
  std::int32_t generated_at_admission = 0;  // of the newest: since then there must be progress
  std::int32_t cached = 0;  // positions of the prompt that were found when it was first admitted
  std::vector<SeenToken> seen;  // kept only with penalties, by token

  bool behind() const { return behind_since != TimePoint{}; }
  std::int32_t generated() const { return static_cast<std::int32_t>(tokens.size()) - prompt_len; }
  // Positions that exist once the steps in flight are done.
  std::int32_t length() const { return static_cast<std::int32_t>(tokens.size()) + pending; }
  // Tokens still to be sampled, those in flight counted as done.
  std::int64_t to_generate() const {
    return std::int64_t{request.stopping.max_new_tokens} - generated() - pending;
  }
};

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_SEQUENCE_H_
