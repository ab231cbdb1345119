// The progress of one request: the sequences that answer it, and what they share. Mutable, owned by
// the scheduler, touched by the engine thread only.
#ifndef MILLRACE_SCHEDULER_SEQUENCE_H_
#define MILLRACE_SCHEDULER_SEQUENCE_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/token_bytes.h"
#include "kernels/sampling.h"
#include "runtime/kv/block_table.h"
#include "runtime/sampling/stop_matcher.h"
#include "scheduler/fair_share.h"
#include "scheduler/request.h"
#include "scheduler/token_event.h"

namespace millrace {

struct Sequence;

// One request and its sequences.
struct RequestGroup {
  Request request;
  TenantId tenant;
  std::string salt;  // prefixes are shared with requests of the same
  std::vector<std::unique_ptr<Sequence>> sequences;  // by index; those that have not ended
  // The first has computed the prompt, or is gone: the others find it in the cache.
  bool prompt_computed = false;
  std::vector<SeenToken> prompt_seen;  // kept only with penalties, by token

  std::uint64_t generated = 0;  // tokens of all sequences
  std::uint64_t delivered = 0;  // of those, handed to the client
  TimePoint behind_since{};     // its reader has fallen behind; the epoch: it has not
  TimePoint first_scheduled{};  // the epoch: not yet
  TimePoint first_token{};
  std::uint32_t preemptions = 0;
  std::int32_t cached = 0;  // positions of the prompt that were found when it was first admitted

  bool behind() const { return behind_since != TimePoint{}; }
  RequestUsage UsageAt(TimePoint now) const;

  // Makes the sequences of `request`, which is set.
  void MakeSequences();
};

enum class SequenceState : std::uint8_t {
  kWaiting,    // in the queue, nothing computed
  kRunning,    // has blocks, is scheduled
  kPaused,     // has blocks, its reader is behind
  kPreempted,  // in the queue again, blocks given back; what it generated is kept and computed
               // again
};

// There is no prefill and no decode: computed positions chase known tokens.
struct Sequence {
  // Of `group`, which outlives it; nothing is computed yet.
  Sequence(RequestGroup* group_in, std::uint32_t index_in);

  RequestGroup* group;
  std::uint32_t index;  // which of the request's answers
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

  std::uint32_t preemptions = 0;
  std::int32_t generated_at_admission = 0;  // of the newest: since then there must be progress
  std::vector<SeenToken> seen;              // kept only with penalties, by token
  StopMatcher stop_matcher;

  const Request& request() const { return group->request; }
  bool preempted() const { return state == SequenceState::kPreempted; }
  std::int32_t generated() const { return static_cast<std::int32_t>(tokens.size()) - prompt_len; }
  // Positions that exist once the steps in flight are done.
  std::int32_t length() const { return static_cast<std::int32_t>(tokens.size()) + pending; }
  // Has a token, or a step in flight samples one.
  bool generates() const { return generated() + pending > 0; }
  // Tokens still to be sampled, those in flight counted as done.
  std::int64_t to_generate() const {
    return std::int64_t{request().stopping.max_new_tokens} - generated() - pending;
  }
  // Of its prompt, to be computed for itself: its siblings find the full blocks of the first.
  std::int32_t prompt_to_compute() const { return index == 0 ? prompt_len : 1; }
  // Waits for nothing but its turn and room: not for its reader, nor for the first to compute the
  // prompt.
  bool could_go() const { return !group->behind() && (index == 0 || group->prompt_computed); }

  // How its next token is sampled.
  RowSampling MakeSampling() const;
};

// What one more token makes of a sequence.
struct Appended {
  TokensEvent event;
  StopMatch match;                     // what the token completes
  std::optional<FinishReason> finish;  // the end
};
// REQUIRES: `sampled` is finite.
Appended Append(Sequence* sequence, const SampledToken& sampled, const TokenBytes& token_bytes);

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_SEQUENCE_H_
