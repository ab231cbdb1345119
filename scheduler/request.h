// What the service hands to the engine: immutable, validated and tokenized; and the submissions
// that carry it in. Values only: nothing here points into the service.
#ifndef MILLRACE_SCHEDULER_REQUEST_H_
#define MILLRACE_SCHEDULER_REQUEST_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/strong_id.h"
#include "runtime/sampling/sampling_params.h"
#include "runtime/sampling/stop_matcher.h"

namespace millrace {

// The most urgent; -kMaxPriority is the least.
inline constexpr std::int32_t kMaxPriority = 10;

struct StoppingParams {
  std::uint32_t max_new_tokens = 0;  // resolved by the service: at most what the context leaves
  std::uint32_t min_new_tokens = 0;
  std::vector<std::uint32_t> end_token_ids;   // the model's; empty with ignore_eos
  std::vector<std::uint32_t> stop_token_ids;  // the caller's
  StopMatcher stop_matcher;                   // the caller's stop strings
};

struct Request {
  RequestId id;
  std::vector<std::uint32_t> prompt_tokens;  // at least one
  SamplingParams sampling;
  StoppingParams stopping;
  bool skip_special_tokens = true;
  std::string cache_salt;            // prefixes are shared with requests of the same one and tenant
  bool bypass_prefix_cache = false;  // neither finds a prefix nor leaves one
  std::uint32_t num_sequences = 1;   // answers, each with a random stream of its own
  std::int32_t priority = 0;         // higher is more urgent
  std::string tenant;                // whose share it is served from; "": everybody's without one
  TimePoint arrival{};
  TimePoint deadline = kNoDeadline;
};

// The ways in.
struct SubmitRequest {
  Request request;
};
struct CancelRequest {  // never refused, unknown and finished ids are ignored
  RequestId id;
};
struct CreditTokens {  // the client has been handed this many tokens in all
  RequestId id;
  std::uint64_t tokens_delivered = 0;
};
struct FlushPrefixCache {};  // no prefix computed until now is found again
using Submission = std::variant<SubmitRequest, CancelRequest, CreditTokens, FlushPrefixCache>;

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_REQUEST_H_
