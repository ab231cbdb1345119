#include "scheduler/sequence.h"

#include <utility>

namespace millrace {
namespace {

bool Contains(const std::vector<std::uint32_t>& ids, std::uint32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// Penalties look at each distinct token once, the prompt's included.
std::vector<SeenToken> SeenIn(std::vector<std::uint32_t> prompt) {
  std::sort(prompt.begin(), prompt.end());
  prompt.erase(std::unique(prompt.begin(), prompt.end()), prompt.end());
  std::vector<SeenToken> seen;
  seen.reserve(prompt.size());
  for (const std::uint32_t token : prompt) seen.push_back({token, 0});
  return seen;
}

void CountSeen(std::uint32_t token, std::vector<SeenToken>* seen) {
  const auto at = std::lower_bound(seen->begin(), seen->end(), token,
                                   [](const SeenToken& s, std::uint32_t t) { return s.token < t; });
  if (at != seen->end() && at->token == token) {
    ++at->output_count;
  } else {
    seen->insert(at, {token, 1});
  }
}

// The bytes that `token` adds to the text, and in `match` the stop string it completes.
std::string TakeText(Sequence* s, std::uint32_t token, const TokenBytes& token_bytes,
                     StopMatch* match) {
  const StoppingParams& stopping = s->request().stopping;
  const bool skipped = s->request().skip_special_tokens && token_bytes.is_special(token);
  const std::string_view bytes = skipped ? std::string_view() : token_bytes.bytes(token);
  if (static_cast<std::uint32_t>(s->generated()) <= stopping.min_new_tokens &&
      stopping.min_new_tokens > 0) {
    return std::string(bytes);  // too early to stop
  }
  StopMatcher::Step step = s->stop_matcher.Push(bytes);
  if (step.hit) *match = MatchedStopString{s->stop_matcher.stop_string(*step.hit)};
  return std::move(step.released);
}

}  // namespace

RequestUsage RequestGroup::UsageAt(TimePoint now) const {
  RequestUsage usage;
  usage.prompt_tokens = static_cast<std::uint32_t>(request.prompt_tokens.size());
  usage.completion_tokens = static_cast<std::uint32_t>(generated);
  usage.cached_tokens = static_cast<std::uint32_t>(cached);
  usage.preemptions = preemptions;
  const TimePoint started = first_scheduled == TimePoint{} ? now : first_scheduled;
  const TimePoint first = first_token == TimePoint{} ? now : first_token;
  usage.queue = started - request.arrival;
  usage.prefill = first - started;
  usage.decode = now - first;
  return usage;
}

Sequence::Sequence(RequestGroup* group_in, std::uint32_t index_in)
    : group(group_in),
      index(index_in),
      tokens(group->request.prompt_tokens),
      prompt_len(static_cast<std::int32_t>(tokens.size())),
      seen(group->prompt_seen),
      stop_matcher(group->request.stopping.stop_matcher) {}

void RequestGroup::MakeSequences() {
  if (request.sampling.sampler.has_penalties()) prompt_seen = SeenIn(request.prompt_tokens);
  for (std::uint32_t index = 0; index < request.num_sequences; ++index) {
    sequences.push_back(std::make_unique<Sequence>(this, index));
  }
}

RowSampling Sequence::MakeSampling() const {
  const SamplingParams& params = request().sampling;
  const StoppingParams& stopping = request().stopping;
  RowSampling row;
  row.params = params.sampler;
  row.index = index;
  row.position = static_cast<std::uint32_t>(generated() + pending);
  row.num_logprobs = params.num_logprobs;
  row.seen = seen;
  row.logit_bias = params.logit_bias;
  row.allowed = params.allowed_token_ids;
  if (row.position < stopping.min_new_tokens) {
    row.banned = stopping.end_token_ids;
    row.banned.insert(row.banned.end(), stopping.stop_token_ids.begin(),
                      stopping.stop_token_ids.end());
  }
  return row;
}

Appended Append(Sequence* s, const SampledToken& sampled, const TokenBytes& token_bytes) {
  const std::uint32_t token = sampled.token;
  s->tokens.push_back(token);
  ++s->group->generated;
  if (s->request().sampling.sampler.has_penalties()) CountSeen(token, &s->seen);
  const StoppingParams& stopping = s->request().stopping;
  Appended out;
  out.event.index = s->index;
  out.event.tokens.push_back(sampled);
  if (Contains(stopping.end_token_ids, token)) {
    out.match = MatchedEndToken{token};
  } else if (Contains(stopping.stop_token_ids, token)) {
    out.match = MatchedStopToken{token};
  } else {
    out.event.released_bytes = TakeText(s, token, token_bytes, &out.match);
  }
  const bool stopped = !std::holds_alternative<std::monostate>(out.match);
  const bool full = s->generated() >= static_cast<std::int32_t>(stopping.max_new_tokens);
  if (!stopped && !full) return out;
  // Text that was held back for a stop string that never came is text after all.
  if (!std::holds_alternative<MatchedStopString>(out.match)) {
    out.event.released_bytes += s->stop_matcher.Flush();
  }
  out.finish = stopped ? FinishReason::kStop : FinishReason::kLength;
  return out;
}

}  // namespace millrace
