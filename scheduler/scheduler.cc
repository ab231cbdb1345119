#include "scheduler/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace millrace {
namespace {

// A request that was preempted so often gets all blocks that it can ever need with its next
// admission and is not preempted again; the most that a healthy server was seen to need is 4
// (docs/reliability.md).
constexpr std::uint32_t kMaxPreemptions = 8;

bool Contains(const std::vector<std::uint32_t>& ids, std::uint32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// Penalties look at each distinct token once, the prompt's included.
void CountSeen(std::uint32_t token, bool output, std::vector<SeenToken>* seen) {
  const auto at = std::lower_bound(seen->begin(), seen->end(), token,
                                   [](const SeenToken& s, std::uint32_t t) { return s.token < t; });
  const std::uint32_t more = output ? 1 : 0;
  if (at != seen->end() && at->token == token) {
    at->output_count += more;
  } else {
    seen->insert(at, {token, more});
  }
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, const RunnerInfo& runner,
                     std::shared_ptr<const TokenBytes> token_bytes)
    : options_(options),
      runner_(runner),
      token_bytes_(std::move(token_bytes)),
      kv_(runner.num_kv_blocks, runner.block_size) {}

Scheduler::~Scheduler() = default;

void Scheduler::Submit(Request request) {
  auto sequence = std::make_unique<Sequence>();
  sequence->tokens = request.prompt_tokens;
  sequence->prompt_len = static_cast<std::int32_t>(request.prompt_tokens.size());
  if (request.sampling.sampler.has_penalties()) {
    for (const std::uint32_t token : request.prompt_tokens)
      CountSeen(token, false, &sequence->seen);
  }
  const RequestId id = request.id;
  sequence->request = std::move(request);
  waiting_prompt_tokens_ += sequence->prompt_len;
  waiting_.push_back(sequence.get());
  const bool added = sequences_.emplace(id, std::move(sequence)).second;
  MILLRACE_CHECK(added, "request ids are unique");
}

Sequence* Scheduler::Find(RequestId id) {
  const auto found = sequences_.find(id);
  return found == sequences_.end() ? nullptr : found->second.get();
}

void Scheduler::Cancel(RequestId id, TimePoint now) {
  Sequence* sequence = Find(id);
  if (sequence == nullptr) return;
  Emit(*sequence, now, CancelledEvent{UsageOf(*sequence, now)});
  Remove(sequence);
}

void Scheduler::Credit(RequestId id, std::uint64_t tokens_delivered) {
  Sequence* sequence = Find(id);
  if (sequence != nullptr) sequence->delivered = std::max(sequence->delivered, tokens_delivered);
}

StepPlan Scheduler::Schedule(TimePoint now) {
  Expire(now);
  PauseOrResume(now);
  Pass pass;
  pass.now = now;
  pass.tokens_left = std::min(options_.max_num_batched_tokens, runner_.max_step_tokens);
  pass.prefill_left = cost_.PrefillBudget(CountDecodes(), options_.itl_target, pass.tokens_left);
  pass.plan.batch.query_start = {0};
  pass.plan.batch.block_table_start = {0};
  ScheduleRunning(&pass);
  ScheduleWaiting(&pass);
  // A pass may preempt and yet plan nothing, while a step is in flight: the next plan tells.
  if (!pass.plan.empty()) {
    pass.plan.preemptions = std::exchange(unreported_preemptions_, 0);
    pass.plan.prefix_cache = kv_.TakeStats();
  }
  return std::move(pass.plan);
}

void Scheduler::Expire(TimePoint now) {
  std::vector<Sequence*> late;
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->request.deadline <= now) late.push_back(sequence.get());
  }
  for (Sequence* sequence : late) {
    Fail(sequence, absl::DeadlineExceededError("the request's deadline passed"), now);
  }
}

void Scheduler::PauseOrResume(TimePoint now) {
  std::vector<Sequence*> stuck;
  for (const auto& [id, sequence] : sequences_) {
    const auto ahead = static_cast<std::int64_t>(sequence->generated()) -
                       static_cast<std::int64_t>(sequence->delivered);
    const bool behind = ahead >= options_.output_window_tokens;
    if (!behind) {
      sequence->behind_since = TimePoint{};
    } else if (!sequence->behind()) {
      sequence->behind_since = now;
    } else if (now - sequence->behind_since >= options_.max_pause) {
      stuck.push_back(sequence.get());
    }
  }
  for (Sequence* sequence : running_) {
    sequence->state = sequence->behind() ? SequenceState::kPaused : SequenceState::kRunning;
  }
  for (Sequence* sequence : stuck) {
    Fail(sequence, absl::AbortedError("the client reads too slowly"), now);
  }
}

std::int32_t Scheduler::CountDecodes() const {
  return static_cast<std::int32_t>(std::count_if(
      running_.begin(), running_.end(),
      [this](const Sequence* s) { return s->generated() + s->pending > 0 && CanAdvance(*s); }));
}

// A token in flight can be the input of the next step, but not of what looks at its value before.
bool Scheduler::CanAdvance(const Sequence& s) const {
  if (s.state != SequenceState::kRunning || s.scheduled >= s.length()) return false;
  const bool needs_value = s.request.sampling.sampler.has_penalties();
  if (s.pending > 0 && (needs_value || s.pending >= runner_.max_in_flight)) return false;
  // Once all is sampled, or all of the prompt is computed where nothing is to be sampled, there is
  // no more to do.
  return s.to_generate() > 0 || s.scheduled < s.prompt_len || s.scheduled < s.high_water;
}

void Scheduler::ScheduleRunning(Pass* pass) {
  // Those that generate come first: what they wait for is one token each. Ids, for a preemption
  // shortens the list.
  std::vector<RequestId> order;
  for (const bool generating : {true, false}) {
    for (const Sequence* s : running_) {
      if ((s->generated() + s->pending > 0) == generating) order.push_back(s->request.id);
    }
  }
  for (const RequestId id : order) {
    Sequence* sequence = Find(id);
    if (sequence != nullptr && CanAdvance(*sequence)) ScheduleSequence(sequence, pass);
  }
}

bool Scheduler::ScheduleSequence(Sequence* sequence, Pass* pass) {
  const bool in_plan = static_cast<std::int32_t>(pass->plan.sequences.size()) >=
                       std::min(options_.max_num_seqs, runner_.max_step_seqs);
  if (in_plan || pass->tokens_left == 0) return false;
  const std::int32_t wanted = sequence->length() - sequence->scheduled;
  // The last position of a sequence that generates is a decode; all before it is a prompt, new or
  // recomputed.
  const std::int32_t room = wanted == 1 && sequence->generated() + sequence->pending > 0
                                ? pass->tokens_left
                                : std::min(pass->tokens_left, pass->prefill_left);
  const std::int32_t num_tokens = std::min(wanted, room);
  if (num_tokens == 0) return false;
  if (!ReserveOrPreempt(sequence, sequence->scheduled + num_tokens, pass)) return false;
  AddToBatch(sequence, num_tokens, pass);
  return true;
}

bool Scheduler::ReserveOrPreempt(Sequence* sequence, std::int64_t positions, Pass* pass) {
  while (!kv_.Reserve(positions, &sequence->blocks)) {
    // Blocks on their way back are waited for: nobody has to give up theirs.
    if (kv_.num_deferred() > 0) return false;
    // Never one that this very step computes: its blocks are in the plan.
    const auto planned = [pass](const Sequence* s) {
      return std::any_of(pass->plan.sequences.begin(), pass->plan.sequences.end(),
                         [s](const PlannedSequence& p) { return p.id == s->request.id; });
    };
    // One whose reader is behind first: it does nothing with its blocks.
    auto victim = std::find_if(running_.rbegin(), running_.rend(), [&](const Sequence* s) {
      return s->state == SequenceState::kPaused && !planned(s) && s->blocks.num_blocks() > 0;
    });
    // Else the youngest that has got on since it was admitted; this one has, or it would not need a
    // block. One that was preempted often has all that it will ever need, and keeps it.
    if (victim == running_.rend()) {
      victim = std::find_if(running_.rbegin(), running_.rend(), [&](const Sequence* s) {
        return !planned(s) && s->preemptions < kMaxPreemptions &&
               s->generated() + s->pending > s->generated_at_admission;
      });
    }
    if (victim == running_.rend()) return false;
    Sequence* const youngest = *victim;
    Preempt(youngest, pass);
    if (youngest == sequence) return false;
  }
  return true;
}

void Scheduler::Preempt(Sequence* victim, Pass* pass) {
  kv_.Release(&victim->blocks);
  victim->state = SequenceState::kPreempted;
  victim->scheduled = 0;
  victim->computed = 0;
  ++victim->preemptions;
  ++unreported_preemptions_;
  pass->preempted = true;
  running_.erase(std::find(running_.begin(), running_.end(), victim));
  waiting_.push_front(victim);
  waiting_prompt_tokens_ += victim->prompt_len;
}

// One whose reader is behind takes no place from those that could run.
std::int32_t Scheduler::CountUnpaused() const {
  return static_cast<std::int32_t>(
      std::count_if(running_.begin(), running_.end(),
                    [](const Sequence* s) { return s->state != SequenceState::kPaused; }));
}

void Scheduler::ScheduleWaiting(Pass* pass) {
  // A step that had to preempt has no room for others.
  while (!pass->preempted) {
    // One whose reader is behind waits for that, not for a place.
    const auto at = std::find_if(waiting_.begin(), waiting_.end(),
                                 [](const Sequence* s) { return !s->behind(); });
    if (at == waiting_.end()) return;
    Sequence* const next = *at;
    if (CountUnpaused() >= options_.max_num_seqs || pass->tokens_left == 0 ||
        pass->prefill_left == 0) {
      return;
    }
    if (next->pending > 0) return;  // its last token is still in flight
    if (!ReserveForAdmission(next, pass)) return;
    waiting_.erase(std::find(waiting_.begin(), waiting_.end(), next));
    waiting_prompt_tokens_ -= next->prompt_len;
    next->state = SequenceState::kRunning;
    next->admission = ++admissions_;
    next->generated_at_admission = next->generated();
    running_.push_back(next);
    if (!ScheduleSequence(next, pass)) return;
  }
}

bool Scheduler::ReserveAllKnown(Sequence* sequence) {
  const std::int64_t positions =
      sequence->preemptions < kMaxPreemptions
          ? sequence->length()
          : std::int64_t{sequence->length()} + std::max<std::int64_t>(0, sequence->to_generate());
  if (sequence->request.bypass_prefix_cache) return kv_.Reserve(positions, &sequence->blocks);
  const auto found = kv_.ReserveWithPrefix(sequence->tokens, positions,
                                           sequence->request.cache_salt, &sequence->blocks);
  if (!found) return false;
  sequence->scheduled = sequence->computed = *found;
  if (sequence->admission == 0) sequence->cached = *found;
  return true;
}

// All blocks of what is known, so that two long prompts do not take each other's in turn.
bool Scheduler::ReserveForAdmission(Sequence* sequence, Pass* pass) {
  while (!ReserveAllKnown(sequence)) {
    if (kv_.num_deferred() > 0) return false;
    // One whose reader is behind loses its blocks to one that can run.
    const auto paused = std::find_if(running_.rbegin(), running_.rend(), [](const Sequence* s) {
      return s->state == SequenceState::kPaused;
    });
    if (paused == running_.rend()) return false;
    Preempt(*paused, pass);
  }
  return true;
}

RowSampling Scheduler::MakeSampling(const Sequence& s) const {
  const SamplingParams& params = s.request.sampling;
  const StoppingParams& stopping = s.request.stopping;
  RowSampling row;
  row.params = params.sampler;
  row.position = static_cast<std::uint32_t>(s.generated() + s.pending);
  row.num_logprobs = params.num_logprobs;
  row.seen = s.seen;
  row.logit_bias = params.logit_bias;
  row.allowed = params.allowed_token_ids;
  if (row.position < stopping.min_new_tokens) {
    row.banned = stopping.end_token_ids;
    row.banned.insert(row.banned.end(), stopping.stop_token_ids.begin(),
                      stopping.stop_token_ids.end());
  }
  return row;
}

void Scheduler::AddToBatch(Sequence* s, std::int32_t num_tokens, Pass* pass) {
  ForwardBatch& batch = pass->plan.batch;
  const auto known = static_cast<std::int32_t>(s->tokens.size());
  const std::int32_t end = s->scheduled + num_tokens;
  for (std::int32_t p = s->scheduled; p < end; ++p) {
    if (p < known) {
      batch.token_ids.push_back(static_cast<std::int32_t>(s->tokens[static_cast<std::size_t>(p)]));
    } else {
      batch.deferred.push_back({batch.num_tokens(), s->pending_ticket, s->pending_row});
      batch.token_ids.push_back(0);
    }
    batch.positions.push_back(p);
  }
  batch.query_start.push_back(batch.num_tokens());
  batch.context_len.push_back(end);
  for (std::int32_t i = 0; i < BlocksFor(end, kv_.block_size()); ++i) {
    batch.block_table.push_back(s->blocks.block(i).value());
  }
  batch.block_table_start.push_back(static_cast<std::int32_t>(batch.block_table.size()));

  PlannedSequence planned{s->request.id, num_tokens, -1, s->admission};
  const bool decode = num_tokens == 1 && s->generated() + s->pending > 0;
  if (s->first_scheduled == TimePoint{}) s->first_scheduled = pass->now;
  const std::int32_t again = std::clamp(s->high_water - s->scheduled, 0, num_tokens);
  pass->plan.recomputed_tokens += again;
  (decode ? pass->plan.decode_tokens : pass->plan.prefill_tokens) += num_tokens;
  pass->tokens_left -= num_tokens;
  if (!decode) pass->prefill_left -= num_tokens;
  if (end == s->length() && s->to_generate() > 0) {
    planned.logit_row = static_cast<std::int32_t>(batch.logit_rows.size());
    batch.logit_rows.push_back(batch.num_tokens() - 1);
    batch.sampling.push_back(MakeSampling(*s));
    s->pending_row = planned.logit_row;
    ++s->pending;
  }
  s->scheduled = end;
  s->high_water = std::max(s->high_water, end);
  pass->plan.sequences.push_back(planned);
}

void Scheduler::Launched(const StepPlan& plan, StepTicket ticket) {
  kv_.StepLaunched();
  for (const PlannedSequence& planned : plan.sequences) {
    Sequence* sequence = Find(planned.id);
    if (sequence != nullptr && planned.logit_row >= 0) sequence->pending_ticket = ticket;
  }
}

void Scheduler::Commit(const StepPlan& plan, const ForwardResult& result, Duration duration,
                       TimePoint now) {
  kv_.StepDone();
  cost_.Observe(plan.prefill_tokens, plan.decode_tokens, duration);
  for (const PlannedSequence& planned : plan.sequences) {
    // One that has ended meanwhile wants no more tokens.
    Sequence* sequence = Find(planned.id);
    if (sequence == nullptr) continue;
    const bool finite =
        planned.logit_row < 0 || result.sampled[static_cast<std::size_t>(planned.logit_row)].finite;
    if (finite) {
      Remember(sequence, planned);
    } else {
      kv_.Forget(sequence->blocks);
    }
    if (planned.logit_row >= 0) {
      --sequence->pending;
      AppendToken(sequence, result.sampled[static_cast<std::size_t>(planned.logit_row)], now);
    } else if (sequence->request.stopping.max_new_tokens == 0 &&
               sequence->scheduled >= sequence->prompt_len) {
      FinishPrefillOnly(sequence, now);
    }
  }
}

// A sequence that was preempted meanwhile has other blocks, or none.
void Scheduler::Remember(Sequence* s, const PlannedSequence& planned) {
  if (s->state == SequenceState::kPreempted || s->admission != planned.admission) return;
  s->computed += planned.num_tokens;
  if (s->request.bypass_prefix_cache) return;
  kv_.Remember(s->tokens, s->computed, s->request.cache_salt, &s->blocks);
}

void Scheduler::FinishPrefillOnly(Sequence* sequence, TimePoint now) {
  sequence->first_token = now;
  Finish(sequence, FinishReason::kLength, {}, now);
}

// The bytes that `token` adds to the text, and in `match` the stop string it completes.
std::string Scheduler::TakeText(Sequence* s, std::uint32_t token, StopMatch* match) {
  StopMatcher& matcher = s->request.stopping.stop_matcher;
  const bool skipped = s->request.skip_special_tokens && token_bytes_->is_special(token);
  const std::string_view bytes = skipped ? std::string_view() : token_bytes_->bytes(token);
  if (static_cast<std::uint32_t>(s->generated()) <= s->request.stopping.min_new_tokens &&
      s->request.stopping.min_new_tokens > 0) {
    return std::string(bytes);  // too early to stop
  }
  StopMatcher::Step step = matcher.Push(bytes);
  if (step.hit) *match = MatchedStopString{matcher.stop_string(*step.hit)};
  return std::move(step.released);
}

void Scheduler::AppendToken(Sequence* s, const SampledToken& sampled, TimePoint now) {
  if (!sampled.finite) {
    Fail(s, absl::InternalError("the model's logits are not finite, or no token is allowed"), now);
    return;
  }
  if (s->generated() == 0) s->first_token = now;
  const std::uint32_t token = sampled.token;
  s->tokens.push_back(token);
  if (s->request.sampling.sampler.has_penalties()) CountSeen(token, true, &s->seen);
  const StoppingParams& stopping = s->request.stopping;
  TokensEvent event;
  event.tokens.push_back(sampled);
  StopMatch match;
  if (Contains(stopping.end_token_ids, token)) {
    match = MatchedEndToken{token};
  } else if (Contains(stopping.stop_token_ids, token)) {
    match = MatchedStopToken{token};
  } else {
    event.released_bytes = TakeText(s, token, &match);
  }
  const bool stopped = !std::holds_alternative<std::monostate>(match);
  const bool full = s->generated() >= static_cast<std::int32_t>(stopping.max_new_tokens);
  // Text that was held back for a stop string that never came is text after all.
  const bool by_string = std::holds_alternative<MatchedStopString>(match);
  if ((stopped || full) && !by_string)
    event.released_bytes += s->request.stopping.stop_matcher.Flush();
  Emit(*s, now, std::move(event));
  if (stopped || full)
    Finish(s, stopped ? FinishReason::kStop : FinishReason::kLength, std::move(match), now);
}

void Scheduler::Emit(
    const Sequence& sequence, TimePoint now,
    std::variant<TokensEvent, FinishedEvent, CancelledEvent, FailedEvent, ShutDownEvent> what) {
  events_.push_back({sequence.request.id, now, std::move(what)});
}

RequestUsage Scheduler::UsageOf(const Sequence& s, TimePoint now) const {
  RequestUsage usage;
  usage.prompt_tokens = static_cast<std::uint32_t>(s.prompt_len);
  usage.completion_tokens = static_cast<std::uint32_t>(s.generated());
  usage.cached_tokens = static_cast<std::uint32_t>(s.cached);
  usage.preemptions = s.preemptions;
  const TimePoint started = s.first_scheduled == TimePoint{} ? now : s.first_scheduled;
  const TimePoint first = s.first_token == TimePoint{} ? now : s.first_token;
  usage.queue = started - s.request.arrival;
  usage.prefill = first - started;
  usage.decode = now - first;
  return usage;
}

void Scheduler::Finish(Sequence* sequence, FinishReason reason, StopMatch match, TimePoint now) {
  Emit(*sequence, now, FinishedEvent{0, reason, std::move(match), UsageOf(*sequence, now)});
  Remove(sequence);
}

void Scheduler::Fail(Sequence* sequence, absl::Status status, TimePoint now) {
  Emit(*sequence, now, FailedEvent{std::move(status), UsageOf(*sequence, now)});
  Remove(sequence);
}

void Scheduler::Remove(Sequence* sequence) {
  kv_.Release(&sequence->blocks);
  const auto running = std::find(running_.begin(), running_.end(), sequence);
  if (running != running_.end()) {
    running_.erase(running);
  } else {
    waiting_.erase(std::find(waiting_.begin(), waiting_.end(), sequence));
    waiting_prompt_tokens_ -= sequence->prompt_len;
  }
  sequences_.erase(sequence->request.id);
}

void Scheduler::FailAll(const absl::Status& why, TimePoint now) {
  while (!sequences_.empty()) {
    Sequence* sequence = sequences_.begin()->second.get();
    const std::string message = absl::StrCat("the device failed: ", std::string(why.message()));
    Fail(
        sequence,
        sequence->generated() == 0 ? absl::UnavailableError(message) : absl::InternalError(message),
        now);
  }
}

void Scheduler::ShutDownAll(TimePoint now) {
  while (!sequences_.empty()) {
    Sequence* sequence = sequences_.begin()->second.get();
    Emit(*sequence, now, ShutDownEvent{UsageOf(*sequence, now)});
    Remove(sequence);
  }
}

std::vector<TokenEvent> Scheduler::TakeEvents() { return std::exchange(events_, {}); }

TimePoint Scheduler::NextTimeout() const {
  TimePoint next = kNoDeadline;
  for (const auto& [id, sequence] : sequences_) {
    next = std::min(next, sequence->request.deadline);
    if (sequence->behind()) next = std::min(next, sequence->behind_since + options_.max_pause);
  }
  return next;
}

TimePoint Scheduler::oldest_arrival() const {
  TimePoint oldest = kNoDeadline;
  for (const Sequence* sequence : waiting_) oldest = std::min(oldest, sequence->request.arrival);
  return oldest;
}

void Scheduler::CheckInvariants() const {
  kv_.CheckInvariants();
  MILLRACE_CHECK(waiting_.size() + running_.size() == sequences_.size(),
                 "a sequence is in one queue");
  std::int64_t prompts = 0;
  std::vector<std::int32_t> references(static_cast<std::size_t>(kv_.num_blocks()), 0);
  kv_.CountDeferred(&references);
  for (const auto& [id, sequence] : sequences_) {
    for (std::int32_t i = 0; i < sequence->blocks.num_blocks(); ++i) {
      ++references[static_cast<std::size_t>(sequence->blocks.block(i).value())];
    }
  }
  std::int32_t held = 0;
  for (std::int32_t i = 0; i < kv_.num_blocks(); ++i) {
    const std::int32_t count = references[static_cast<std::size_t>(i)];
    MILLRACE_CHECK(kv_.references(BlockId(i)) == count, "references are those of the tables");
    if (count > 0) ++held;
  }
  for (const Sequence* sequence : waiting_) {
    prompts += sequence->prompt_len;
    MILLRACE_CHECK(sequence->blocks.num_blocks() == 0, "who waits holds no blocks");
  }
  MILLRACE_CHECK(prompts == waiting_prompt_tokens_, "waiting prompt tokens are counted");
  MILLRACE_CHECK(held + kv_.num_free() == kv_.num_blocks(), "free + held = total");
  for (const Sequence* sequence : running_) {
    MILLRACE_CHECK(
        sequence->computed <= sequence->scheduled && sequence->scheduled <= sequence->length(),
        "computed positions chase known tokens");
    MILLRACE_CHECK(
        BlocksFor(sequence->scheduled, kv_.block_size()) <= sequence->blocks.num_blocks(),
        "every computed position has a slot");
  }
}

}  // namespace millrace
