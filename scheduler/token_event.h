// What leaves the engine, by one channel: for every request its tokens and exactly one terminal
// event; for every step its figures. Values only.
#ifndef MILLRACE_SCHEDULER_TOKEN_EVENT_H_
#define MILLRACE_SCHEDULER_TOKEN_EVENT_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "base/channel.h"
#include "base/clock.h"
#include "base/strong_id.h"
#include "kernels/sampling.h"
#include "runtime/step/forward_batch.h"
#include "scheduler/kv_manager.h"

namespace millrace {

enum class FinishReason : std::uint8_t { kStop, kLength };

// What a kStop matched.
struct MatchedEndToken {
  std::uint32_t token;
};
struct MatchedStopToken {
  std::uint32_t token;
};
struct MatchedStopString {
  std::string text;
};
using StopMatch =
    std::variant<std::monostate, MatchedEndToken, MatchedStopToken, MatchedStopString>;

struct RequestUsage {
  std::uint32_t prompt_tokens = 0;
  std::uint32_t completion_tokens = 0;
  std::uint32_t cached_tokens = 0;
  std::uint32_t preemptions = 0;
  Duration queue{};    // arrival to the first step that worked on it
  Duration prefill{};  // from there to the first token
  Duration decode{};   // from there to the end
};

// New tokens of one sequence. `released_bytes` is text that is certain: token bytes without what a
// stop string may still take; not always whole UTF-8.
struct TokensEvent {
  std::uint32_t index = 0;
  std::vector<SampledToken> tokens;
  std::string released_bytes;
};
// The end of one sequence. The last one's is a terminal event.
struct FinishedEvent {
  std::uint32_t index = 0;
  FinishReason reason = FinishReason::kStop;
  StopMatch match;
  RequestUsage usage;  // of the request, up to here
  bool last = true;    // no sequence of the request goes on
};
// Exactly one terminal event for every accepted request: the last FinishedEvent, or
struct CancelledEvent {  // on CancelRequest
  RequestUsage usage;
};
struct FailedEvent {  // its status says why: DEADLINE_EXCEEDED, ABORTED, INTERNAL,
                      // RESOURCE_EXHAUSTED...
  absl::Status status;
  RequestUsage usage;
};
struct ShutDownEvent {  // cut off at the end of a drain
  RequestUsage usage;
};

struct TokenEvent {
  RequestId id;
  TimePoint at{};  // when the step that made it was committed
  std::variant<TokensEvent, FinishedEvent, CancelledEvent, FailedEvent, ShutDownEvent> what;

  bool terminal() const {
    if (const auto* finished = std::get_if<FinishedEvent>(&what)) return finished->last;
    return !std::holds_alternative<TokensEvent>(what);
  }
};

// Figures of one step, for metrics.
struct StepStats {
  Duration duration{};              // Launch to Await's return
  Duration schedule_duration{};     // Schedule and Commit
  std::int32_t prefill_tokens = 0;  // tokens of prompts computed in the step (recomputed ones too)
  std::int32_t decode_tokens = 0;   // tokens computed for sequences past their prompt
  std::int32_t sequences = 0;
  std::int32_t preemptions = 0;
  std::int32_t recomputed_tokens = 0;  // known tokens computed again after a preemption
  std::int32_t unwanted_tokens = 0;    // sampled for sequences that ended during the step
  PrefixCacheStats prefix_cache;
  bool moe = false;
  MoeStats experts;
};

// One item of the token channel: everything one Commit produced.
struct EngineOutput {
  std::vector<TokenEvent> events;
  bool has_step = false;
  StepStats step;
};

using TokenChannel = Channel<EngineOutput>;

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_TOKEN_EVENT_H_
