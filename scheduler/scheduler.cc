#include "scheduler/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/error_details.h"

namespace millrace {
namespace {

// Prefixes are shared under the same tenant and salt. A request that passes the cache by shares
// with its own sequences alone. Different requests of different kinds never have the same: the
// length of the tenant's name says where the caller's salt begins.
std::string SaltOf(const Request& request) {
  if (request.bypass_prefix_cache) return absl::StrCat("alone:", request.id.value());
  return absl::StrCat(request.tenant.size(), ":", request.tenant, request.cache_salt);
}

// A request that does not fit may be passed by other tenants' until one of those that wait for
// their first admission is so old: room is used meanwhile, and whoever needs much of it gets it.
constexpr Duration kMayBePassed = std::chrono::seconds(30);
// Each one passed costs a look at the queue.
constexpr std::size_t kMostPassed = 4;

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, const RunnerInfo& runner,
                     std::shared_ptr<const TokenBytes> token_bytes)
    : options_(options),
      runner_(runner),
      token_bytes_(std::move(token_bytes)),
      places_(std::min(options.max_num_seqs, runner.max_step_seqs)),
      kv_(runner.num_kv_blocks, runner.block_size) {}

Scheduler::~Scheduler() = default;

void Scheduler::Submit(Request request, TimePoint now) {
  const RequestId id = request.id;
  if (idle() && now - last_step_ >= CostModel::kKeeps) cost_.Age(now - last_step_);
  auto group = std::make_unique<RequestGroup>();
  group->tenant = shares_.Join(request.tenant);
  group->salt = SaltOf(request);
  group->request = std::move(request);
  group->MakeSequences();
  for (const auto& sequence : group->sequences) waiting_.Push(sequence.get());
  const bool added = groups_.emplace(id, std::move(group)).second;
  MILLRACE_CHECK(added, "request ids are unique");
  ShedSurplus(now);
}

// Admission keeps the queue within its limits but for tenants that have less than their share of
// it.
void Scheduler::ShedSurplus(TimePoint now) {
  using Limit = WaitQueue::Limit;
  while (shares_.num_waiting() > 1) {
    const std::int32_t places = std::max(0, places_ - CountUnpaused());
    const bool many = waiting_.size() > options_.max_queue + places;
    if (!many && waiting_.prompt_tokens() <= options_.max_queue_tokens) return;
    // None where all of that tenant's have been worked on: they are let be.
    Sequence* const surplus =
        waiting_.Surplus(now, many ? Limit::kSequences : Limit::kPromptTokens);
    if (surplus == nullptr) return;
    Fail(surplus->group,
         WithRetry(absl::ResourceExhaustedError("the queue is full, and others have less of it"),
                   kQueueFull, std::chrono::seconds(1)),
         now);
  }
}

RequestGroup* Scheduler::Find(RequestId id) {
  const auto found = groups_.find(id);
  return found == groups_.end() ? nullptr : found->second.get();
}

Sequence* Scheduler::Find(RequestId id, std::uint32_t index) {
  const RequestGroup* const group = Find(id);
  if (group == nullptr) return nullptr;
  for (const auto& sequence : group->sequences) {
    if (sequence->index == index) return sequence.get();
  }
  return nullptr;
}

void Scheduler::Cancel(RequestId id, TimePoint now) {
  RequestGroup* const group = Find(id);
  if (group == nullptr) return;
  Emit(*group, now, CancelledEvent{group->UsageAt(now)});
  Remove(group);
}

void Scheduler::Credit(RequestId id, std::uint64_t tokens_delivered) {
  RequestGroup* const group = Find(id);
  if (group != nullptr) group->delivered = std::max(group->delivered, tokens_delivered);
}

StepPlan Scheduler::Schedule(TimePoint now) {
  Expire(now);
  PauseOrResume(now);
  EndDoomed(now);
  Pass pass;
  pass.now = now;
  pass.tokens_left = std::min(options_.max_num_batched_tokens, runner_.max_step_tokens);
  pass.prefill_left = cost_.PrefillBudget(CountDecodes(), options_.itl_target, pass.tokens_left);
  Begin(&pass.plan);
  ScheduleRunning(&pass);
  ScheduleWaiting(&pass);
  ObserveTurns(pass);
  // A pass may preempt and yet plan nothing, while a step is in flight: the next plan tells.
  if (!pass.plan.empty()) {
    pass.plan.preemptions = std::exchange(unreported_preemptions_, 0);
    pass.plan.prefix_cache = kv_.TakeStats();
    last_table_size_ = pass.plan.batch.block_table.size();
  }
  return std::move(pass.plan);
}

// A step is much like the one before: room for as much saves growing.
void Scheduler::Begin(StepPlan* plan) {
  const std::size_t sequences = running_.size() + 1;
  ForwardBatch& batch = plan->batch;
  plan->sequences.reserve(sequences);
  batch.query_start.reserve(sequences + 1);
  batch.block_table_start.reserve(sequences + 1);
  batch.sampling.reserve(sequences);
  batch.block_table.reserve(last_table_size_ + sequences);
  batch.query_start.push_back(0);
  batch.block_table_start.push_back(0);
}

void Scheduler::ObserveTurns(const Pass& pass) {
  const bool waited = turns_since_ != TimePoint{};
  if (waited && pass.admitted > 0) cost_.ObserveTurns(pass.admitted, pass.now - turns_since_);
  if (waiting_.empty()) {
    turns_since_ = TimePoint{};
  } else if (!waited || pass.admitted > 0) {
    turns_since_ = pass.now;
  }
}

void Scheduler::Expire(TimePoint now) {
  std::vector<RequestGroup*> late;
  for (const auto& [id, group] : groups_) {
    if (group->request.deadline <= now) late.push_back(group.get());
  }
  for (RequestGroup* group : late) {
    Fail(group, absl::DeadlineExceededError("the request's deadline passed"), now);
  }
}

void Scheduler::PauseOrResume(TimePoint now) {
  std::vector<RequestGroup*> stuck;
  for (const auto& [id, group] : groups_) {
    const auto ahead =
        static_cast<std::int64_t>(group->generated) - static_cast<std::int64_t>(group->delivered);
    const bool behind = ahead >= options_.output_window_tokens;
    if (!behind) {
      group->behind_since = TimePoint{};
    } else if (!group->behind()) {
      group->behind_since = now;
    } else if (now - group->behind_since >= options_.max_pause) {
      stuck.push_back(group.get());
    }
  }
  for (Sequence* sequence : running_) {
    sequence->state = sequence->group->behind() ? SequenceState::kPaused : SequenceState::kRunning;
  }
  for (RequestGroup* group : stuck) {
    Fail(group, absl::AbortedError("the client reads too slowly"), now);
  }
}

// Even if it had every step to itself, its first token, and what it must generate after it, came
// too late. Only while the first of its sequences computes the prompt: the others wait for that, so
// nothing of a request that is ended for this stands in a plan.
bool Scheduler::Doomed(const Sequence& s, std::int32_t known, TimePoint now) const {
  const Request& request = s.request();
  if (request.deadline == kNoDeadline || s.group->prompt_computed) return false;
  return now + cost_.Predict(s.prompt_len - known, request.stopping.min_new_tokens) >
         request.deadline;
}

// Judged before it takes blocks, or counts as one that found some.
bool Scheduler::DoomedBeforeItBegins(const Sequence& s, TimePoint now) const {
  // What is known is looked up for those alone that need it.
  if (!Doomed(s, 0, now)) return false;
  return !UsesCache(s.request()) || Doomed(s, kv_.KnownPositions(s.tokens, s.group->salt), now);
}

void Scheduler::EndDoomed(TimePoint now) {
  std::vector<RequestGroup*> doomed;
  for (const Sequence* sequence : running_) {
    if (Doomed(*sequence, sequence->scheduled, now)) doomed.push_back(sequence->group);
  }
  for (RequestGroup* group : doomed) FailDoomed(group, now);
}

void Scheduler::FailDoomed(RequestGroup* group, TimePoint now) {
  Fail(group, absl::DeadlineExceededError("its first token would come after its deadline"), now);
}

std::int32_t Scheduler::CountDecodes() const {
  return static_cast<std::int32_t>(
      std::count_if(running_.begin(), running_.end(),
                    [this](const Sequence* s) { return s->generates() && CanAdvance(*s); }));
}

// A token in flight can be the input of the next step, but not of what looks at its value before.
bool Scheduler::CanAdvance(const Sequence& s) const {
  if (s.state != SequenceState::kRunning || s.scheduled >= s.length()) return false;
  const bool needs_value = s.request().sampling.sampler.has_penalties();
  if (s.pending > 0 && (needs_value || s.pending >= runner_.max_in_flight)) return false;
  // Once all is sampled, or all of the prompt is computed where nothing is to be sampled, there is
  // no more to do.
  return s.to_generate() > 0 || s.scheduled < s.prompt_len || s.scheduled < s.high_water;
}

void Scheduler::ScheduleRunning(Pass* pass) {
  // Those that generate come first: what they wait for is one token each. A copy, for a preemption
  // shortens the list; who is preempted can no longer advance.
  std::vector<Sequence*> order = running_;
  std::stable_partition(order.begin(), order.end(),
                        [](const Sequence* s) { return s->generates(); });
  for (Sequence* sequence : order) {
    if (CanAdvance(*sequence)) ScheduleSequence(sequence, pass);
  }
}

bool Scheduler::ScheduleSequence(Sequence* sequence, Pass* pass) {
  const bool in_plan = static_cast<std::int32_t>(pass->plan.sequences.size()) >= places_;
  if (in_plan || pass->tokens_left == 0) return false;
  const std::int32_t wanted = sequence->length() - sequence->scheduled;
  // The last position of a sequence that generates is a decode; all before it is a prompt, new or
  // recomputed.
  const std::int32_t room = wanted == 1 && sequence->generates()
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
      return std::any_of(
          pass->plan.sequences.begin(), pass->plan.sequences.end(),
          [s](const PlannedSequence& p) { return p.id == s->request().id && p.index == s->index; });
    };
    // One whose reader is behind first: it does nothing with its blocks.
    auto victim = std::find_if(running_.rbegin(), running_.rend(), [&](const Sequence* s) {
      return s->state == SequenceState::kPaused && !planned(s) && s->blocks.num_blocks() > 0;
    });
    // Else the youngest that has got on since it was admitted; this one has, or it would not need a
    // block. One that was preempted often has all that it will ever need, and keeps it.
    if (victim == running_.rend()) {
      victim = std::find_if(running_.rbegin(), running_.rend(), [&](const Sequence* s) {
        return !planned(s) && s->preemptions < options_.max_preemptions &&
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
  ++victim->group->preemptions;
  ++unreported_preemptions_;
  pass->preempted = true;
  running_.erase(std::find(running_.begin(), running_.end(), victim));
  waiting_.Push(victim);
}

// One whose reader is behind takes no place from those that could run.
std::int32_t Scheduler::CountUnpaused() const {
  return static_cast<std::int32_t>(
      std::count_if(running_.begin(), running_.end(),
                    [](const Sequence* s) { return s->state != SequenceState::kPaused; }));
}

void Scheduler::ScheduleWaiting(Pass* pass) {
  std::vector<TenantId> passed;  // their first does not fit
  const auto may_go = [&passed](const Sequence& s) {
    return s.could_go() && std::find(passed.begin(), passed.end(), s.group->tenant) == passed.end();
  };
  // A step that had to preempt for those that run has no room for others.
  if (pass->preempted) return;
  for (;;) {
    Sequence* const next = waiting_.First(pass->now, may_go);
    if (next == nullptr) return;
    if (CountUnpaused() >= places_ || pass->tokens_left == 0 || pass->prefill_left == 0) {
      return;
    }
    if (next->pending > 0) return;  // its last token is still in flight
    if (DoomedBeforeItBegins(*next, pass->now)) {
      FailDoomed(next->group, pass->now);
      continue;
    }
    if (!ReserveForAdmission(next, pass)) {
      // Blocks on their way back are waited for.
      if (kv_.num_deferred() > 0 || next->preempted() || passed.size() >= kMostPassed ||
          pass->now - waiting_.oldest_arrival_of_new() >= kMayBePassed) {
        return;
      }
      passed.push_back(next->group->tenant);
      continue;
    }
    waiting_.LiftOthers(*next, pass->now);
    Admit(next);
    ++pass->admitted;
    if (!ScheduleSequence(next, pass)) return;
  }
}

void Scheduler::Admit(Sequence* sequence) {
  waiting_.Remove(sequence);
  sequence->state = SequenceState::kRunning;
  sequence->admission = ++admissions_;
  sequence->generated_at_admission = sequence->generated();
  running_.push_back(sequence);
}

bool Scheduler::ReserveAllKnown(Sequence* sequence) {
  const std::int64_t positions =
      sequence->preemptions < options_.max_preemptions
          ? sequence->length()
          : std::int64_t{sequence->length()} + std::max<std::int64_t>(0, sequence->to_generate());
  const Request& request = sequence->request();
  if (!UsesCache(request)) return kv_.Reserve(positions, &sequence->blocks);
  const auto found =
      kv_.ReserveWithPrefix(sequence->tokens, positions, sequence->group->salt, &sequence->blocks);
  if (!found) return false;
  sequence->scheduled = sequence->computed = *found;
  if (sequence->admission == 0 && sequence->index == 0) sequence->group->cached = *found;
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
  s->blocks.AppendIds(BlocksFor(end, kv_.block_size()), &batch.block_table);
  batch.block_table_start.push_back(static_cast<std::int32_t>(batch.block_table.size()));

  RequestGroup& group = *s->group;
  PlannedSequence planned{group.request.id, s->index, num_tokens, -1, s->admission};
  const bool decode = num_tokens == 1 && s->generates();
  if (group.first_scheduled == TimePoint{}) group.first_scheduled = pass->now;
  const std::int32_t again = std::clamp(s->high_water - s->scheduled, 0, num_tokens);
  pass->plan.recomputed_tokens += again;
  shares_.Charge(group.tenant, num_tokens - again);
  (decode ? pass->plan.decode_tokens : pass->plan.prefill_tokens) += num_tokens;
  pass->tokens_left -= num_tokens;
  if (!decode) pass->prefill_left -= num_tokens;
  if (end == s->length() && s->to_generate() > 0) {
    planned.logit_row = static_cast<std::int32_t>(batch.logit_rows.size());
    batch.logit_rows.push_back(batch.num_tokens() - 1);
    batch.sampling.push_back(s->MakeSampling());
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
    Sequence* sequence = Find(planned.id, planned.index);
    if (sequence != nullptr && planned.logit_row >= 0) sequence->pending_ticket = ticket;
  }
}

std::int32_t Scheduler::Commit(const StepPlan& plan, const ForwardResult& result, Duration duration,
                               TimePoint now) {
  std::int32_t unwanted = 0;
  kv_.StepDone();
  last_step_ = now;
  cost_.Observe(plan.prefill_tokens, plan.decode_tokens, duration);
  for (const PlannedSequence& planned : plan.sequences) {
    // One that has ended meanwhile wants no more tokens.
    Sequence* sequence = Find(planned.id, planned.index);
    if (sequence == nullptr) {
      if (planned.logit_row >= 0) ++unwanted;
      continue;
    }
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
    } else if (sequence->request().stopping.max_new_tokens == 0 &&
               sequence->scheduled >= sequence->prompt_len) {
      FinishPrefillOnly(sequence, now);
    }
  }
  return unwanted;
}

// A sequence that was preempted meanwhile has other blocks, or none.
void Scheduler::Remember(Sequence* s, const PlannedSequence& planned) {
  if (s->state == SequenceState::kPreempted || s->admission != planned.admission) return;
  s->computed += planned.num_tokens;
  if (s->computed >= s->prompt_len) s->group->prompt_computed = true;
  if (UsesCache(s->request())) {
    kv_.Remember(s->tokens, s->computed, s->group->salt, &s->blocks);
  }
}

void Scheduler::FinishPrefillOnly(Sequence* sequence, TimePoint now) {
  if (sequence->group->first_token == TimePoint{}) sequence->group->first_token = now;
  Finish(sequence, FinishReason::kLength, {}, now);
}

void Scheduler::AppendToken(Sequence* s, const SampledToken& sampled, TimePoint now) {
  if (!sampled.finite) {
    Fail(s->group, absl::InternalError("the model's logits are not finite, or no token is allowed"),
         now);
    return;
  }
  if (s->group->first_token == TimePoint{}) s->group->first_token = now;
  s->group->prompt_computed = true;
  Appended appended = Append(s, sampled, *token_bytes_);
  Emit(*s->group, now, std::move(appended.event));
  if (appended.finish) Finish(s, *appended.finish, std::move(appended.match), now);
}

void Scheduler::Emit(
    const RequestGroup& group, TimePoint now,
    std::variant<TokensEvent, FinishedEvent, CancelledEvent, FailedEvent, ShutDownEvent> what) {
  events_.push_back({group.request.id, now, std::move(what)});
}

void Scheduler::Finish(Sequence* sequence, FinishReason reason, StopMatch match, TimePoint now) {
  RequestGroup* const group = sequence->group;
  const bool last = group->sequences.size() == 1;
  Emit(*group, now,
       FinishedEvent{sequence->index, reason, std::move(match), group->UsageAt(now), last});
  if (last) return Remove(group);
  group->prompt_computed = true;  // its siblings wait no longer
  Detach(sequence);
  std::erase_if(group->sequences, [sequence](const auto& s) { return s.get() == sequence; });
}

void Scheduler::Fail(RequestGroup* group, absl::Status status, TimePoint now) {
  Emit(*group, now, FailedEvent{std::move(status), group->UsageAt(now)});
  Remove(group);
}

void Scheduler::Remove(RequestGroup* group) {
  for (const auto& sequence : group->sequences) Detach(sequence.get());
  shares_.Leave(group->tenant);
  groups_.erase(group->request.id);
}

void Scheduler::Detach(Sequence* sequence) {
  kv_.Release(&sequence->blocks);
  const auto running = std::find(running_.begin(), running_.end(), sequence);
  if (running != running_.end()) {
    running_.erase(running);
  } else {
    waiting_.Remove(sequence);
  }
}

void Scheduler::FailAll(const absl::Status& why, TimePoint now) {
  const std::string message = absl::StrCat("the device failed: ", std::string(why.message()));
  while (!groups_.empty()) {
    RequestGroup* const group = groups_.begin()->second.get();
    Fail(group,
         group->generated == 0 ? absl::UnavailableError(message) : absl::InternalError(message),
         now);
  }
}

void Scheduler::ShutDownAll(TimePoint now) {
  while (!groups_.empty()) {
    RequestGroup* const group = groups_.begin()->second.get();
    Emit(*group, now, ShutDownEvent{group->UsageAt(now)});
    Remove(group);
  }
}

std::vector<TokenEvent> Scheduler::TakeEvents() { return std::exchange(events_, {}); }

TimePoint Scheduler::NextTimeout() const {
  TimePoint next = kNoDeadline;
  for (const auto& [id, group] : groups_) {
    next = std::min(next, group->request.deadline);
    if (group->behind()) next = std::min(next, group->behind_since + options_.max_pause);
  }
  return next;
}

double Scheduler::prefill_pace() const {
  // By their state: those that a step in flight computes go on, too.
  const auto streams = std::count_if(running_.begin(), running_.end(), [](const Sequence* s) {
    return s->state == SequenceState::kRunning && s->generates();
  });
  return cost_.PrefillPace(static_cast<std::int32_t>(streams), options_.itl_target,
                           std::min(options_.max_num_batched_tokens, runner_.max_step_tokens));
}

std::int64_t Scheduler::running_prompt_backlog() const {
  std::int64_t tokens = 0;
  for (const Sequence* s : running_) tokens += std::max(0, s->prompt_len - s->scheduled);
  return tokens;
}

LoadSnapshot Scheduler::Load() const {
  LoadSnapshot load;
  load.running = num_running();
  load.waiting = num_waiting();
  load.max_running = options_.max_num_seqs;
  load.waiting_prompt_tokens = waiting_prompt_tokens();
  load.kv_blocks_total = kv_.num_blocks();
  load.kv_blocks_used = kv_.num_blocks() - kv_.num_free();
  load.kv_blocks_cached = kv_.num_cached();
  load.running_prompt_backlog = running_prompt_backlog();
  load.prefill_seconds_per_token = prefill_pace();
  load.decode_seconds_per_token = cost_.decode_seconds();
  load.lowest_prefill_seconds = cost_.lowest_prefill_seconds();
  load.lowest_decode_seconds = cost_.lowest_decode_seconds();
  load.seconds_per_turn = cost_.seconds_per_turn();
  load.last_step = last_step_;
  return load;
}

void Scheduler::CheckInvariants() const {
  kv_.CheckInvariants();
  std::size_t sequences = 0;
  std::vector<std::int32_t> references(static_cast<std::size_t>(kv_.num_blocks()), 0);
  kv_.CountDeferred(&references);
  for (const auto& [id, group] : groups_) {
    MILLRACE_CHECK(!group->sequences.empty(), "a request without sequences has ended");
    sequences += group->sequences.size();
    for (const auto& sequence : group->sequences) {
      for (std::int32_t i = 0; i < sequence->blocks.num_blocks(); ++i) {
        ++references[static_cast<std::size_t>(sequence->blocks.block(i).value())];
      }
    }
  }
  MILLRACE_CHECK(waiting_.sequences().size() + running_.size() == sequences,
                 "a sequence is in one queue");
  std::int32_t held = 0;
  for (std::int32_t i = 0; i < kv_.num_blocks(); ++i) {
    const std::int32_t count = references[static_cast<std::size_t>(i)];
    MILLRACE_CHECK(kv_.references(BlockId(i)) == count, "references are those of the tables");
    if (count > 0) ++held;
  }
  std::int64_t prompts = 0;
  for (const Sequence* sequence : waiting_.sequences()) {
    prompts += sequence->prompt_to_compute();
    MILLRACE_CHECK(sequence->blocks.num_blocks() == 0, "who waits holds no blocks");
  }
  MILLRACE_CHECK(prompts == waiting_.prompt_tokens(), "waiting prompt tokens are counted");
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
