#include "tests/sim/simulation.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/error_details.h"
#include "base/token_bytes.h"

namespace millrace::sim {

using std::chrono::milliseconds;

const std::array<const char*, kNumRare> kRareNames = {
    "preempted",
    "preempted with a step in flight",
    "a preempted sequence resumed from the cache",
    "a hit on a block of a running sequence",
    "a hit on a block of one that has ended",
    "a hit for all of a prompt but its last block",
    "an eviction",
    "cancelled with a step in flight",
    "cancelled while waiting",
    "a stop token",
    "expired while waiting",
    "expired while running",
    "aborted for its slow reader",
    "logits that are not finite",
    "the queue was full",
    "the device lost with a step in flight",
    "cut off at the end of a drain",
    "two steps in flight",
    "displaced from a full queue",
    "refused for its deadline",
    "ended before a deadline that it could not meet",
    "a lower class first, by age",
    "a later arrival first, by its tenant",
    "an answer began with blocks of another",
    "a step that ended late",
    "ended before the cancel of its lost connection came",
    "flushed while sequences held known blocks",
    "preempted as often as may be",
    "the device out of memory",
    "let in after a silence, by a lower price"};

namespace {

// More than any episode takes to end by itself once nothing arrives and all readers read.
constexpr int kEventsToEnd = 20000;
// A lost connection is noticed after so many events at most.
constexpr std::int32_t kEventsToNotice = 12;
// Now and then nothing happens for longer than prices keep.
constexpr milliseconds kSilence(6000);

std::shared_ptr<const TokenBytes> OneByteEach(std::int32_t vocab) {
  std::vector<std::string> bytes(static_cast<std::size_t>(vocab), "x");
  std::vector<bool> special(static_cast<std::size_t>(vocab), false);
  return std::make_shared<TokenBytes>(std::move(bytes), std::move(special));
}

// Whose prefixes are shared: those of the same tenant and salt, or of one request alone.
std::uint64_t HashOfSalt(const Request& request) {
  std::uint64_t h = 0x5A17;
  if (request.bypass_prefix_cache) return Mix(h, request.id.value());
  for (const char c : request.tenant) h = Mix(h, static_cast<std::uint64_t>(c));
  h = Mix(h, 0xFFFF);
  for (const char c : request.cache_salt) h = Mix(h, static_cast<std::uint64_t>(c));
  return h;
}

bool UsesCache(const Request& request) {
  return !request.bypass_prefix_cache || request.num_sequences > 1;
}

// Requests wait for their turn, never for memory.
bool HasRoom(const SimConfig& config) {
  const std::int64_t most = config.runner.max_context / config.runner.block_size + 1;
  return config.runner.max_step_seqs >= config.options.max_num_seqs &&
         config.runner.num_kv_blocks >= most * config.max_live;
}

}  // namespace

Simulation::Simulation(const SimConfig& config)
    : config_(config),
      rng_(Mix(config.seed, 0xE7E7)),
      device_(config.runner),
      scheduler_(config.options, config.runner, OneByteEach(config.runner.vocab)),
      now_(std::chrono::seconds(1)),
      room_(HasRoom(config)),
      turns_alone_(room_ && config.max_priority == 0 && config.percent_siblings == 0) {}

void Simulation::Require(bool condition, const std::string& what) {
  if (condition || !result_.violation.empty()) return;
  result_.violation = what;
  over_ = true;
}

EpisodeResult Simulation::Run(std::uint64_t max_events) {
  const std::uint64_t most =
      std::min<std::uint64_t>(max_events, static_cast<std::uint64_t>(config_.max_events));
  while (!over_ && result_.events < most) {
    Do(DrawEvent());
    if (draining_ && callers_.empty() && in_flight_.empty()) over_ = true;
  }
  if (!over_) RunToTheEnd();
  return result_;
}

void Simulation::Submit(Request request) {
  arrivals_ = std::max(arrivals_, request.id.value());
  request.arrival = now_;
  TakeRequest(std::move(request));
  AfterEvent();
}

void Simulation::Launch() {
  LaunchStep();
  AfterEvent();
}

void Simulation::Commit() {
  CommitStep();
  AfterEvent();
}

void Simulation::Cancel(RequestId id) {
  CancelCaller(&callers_.at(id));
  AfterEvent();
}

void Simulation::FailCommit() {
  device_.FailNextAwait();
  Commit();
}

const EpisodeResult& Simulation::Finish() {
  if (!over_) RunToTheEnd();
  return result_;
}

Event Simulation::DrawEvent() {
  std::uint32_t at = rng_.Below(1000);
  for (std::size_t i = 0; i < kNumEvents; ++i) {
    if (at < config_.weight[i]) return static_cast<Event>(i);
    at -= config_.weight[i];
  }
  const std::uint32_t kind = at % 10;
  if (kind < 2) return Event::kArrive;
  return kind < 6 ? Event::kLaunch : Event::kCommit;
}

void Simulation::Do(Event event) {
  ++result_.events;
  switch (event) {
    case Event::kArrive:
      Arrive();
      break;
    case Event::kLaunch:
      LaunchStep();
      break;
    case Event::kCommit:
      CommitStep();
      break;
    case Event::kCancel:
      CancelAny();
      break;
    case Event::kDisconnect:
      Disconnect();
      break;
    case Event::kStall:
      Stall();
      break;
    case Event::kTick:
      now_ += rng_.Percent(callers_.empty() ? 30 : 5)
                  ? kSilence
                  : milliseconds(rng_.Between(1, config_.max_tick));
      break;
    case Event::kSpoil:
      device_.SpoilNextRow(rng_.Below(64));
      ++spoiled_;
      break;
    case Event::kFailLaunch:
      device_.FailNextLaunch(absl::InternalError("lost"));
      break;
    case Event::kOutOfMemory:
      device_.FailNextLaunch(absl::ResourceExhaustedError("out of device memory"));
      break;
    case Event::kFlush:
      Flush();
      break;
    case Event::kFailAwait:
      device_.FailNextAwait();
      break;
    case Event::kDrain:
      draining_ = true;
      if (rng_.Percent(30)) CutOff();
      break;
  }
  AfterEvent();
}

void Simulation::AfterEvent() {
  CancelTheGone();
  TakeEvents();
  CreditReaders();
  scheduler_.CheckInvariants();
  Require(device_.violation().empty(), device_.violation());
}

Request Simulation::DrawRequest() {
  Request request;
  request.id = RequestId(++arrivals_);
  const auto vocab = static_cast<std::uint32_t>(config_.runner.vocab);
  const std::int32_t length = rng_.Between(1, config_.max_prompt);
  const std::int32_t common = rng_.Percent(80) ? rng_.Between(0, length) : 0;
  const std::uint64_t text = rng_.Below(static_cast<std::uint32_t>(config_.num_texts));
  for (std::int32_t i = 0; i < length; ++i) {
    const std::uint64_t of_text = Mix(text, static_cast<std::uint64_t>(i));
    request.prompt_tokens.push_back(
        static_cast<std::uint32_t>((i < common ? of_text : rng_.Next()) % vocab));
  }
  const std::uint32_t salt = rng_.Below(static_cast<std::uint32_t>(config_.num_salts));
  if (salt > 0) request.cache_salt = std::string(1, static_cast<char>('a' + salt));
  request.bypass_prefix_cache = rng_.Percent(static_cast<std::uint32_t>(config_.percent_bypass));
  request.sampling.sampler.temperature = rng_.Percent(50) ? 0.0F : 1.0F;
  request.sampling.sampler.seed = rng_.Below(5);
  StoppingParams& stopping = request.stopping;
  const std::int32_t least = rng_.Percent(10) ? 0 : std::min(1, config_.max_output);
  stopping.max_new_tokens = static_cast<std::uint32_t>(rng_.Between(least, config_.max_output));
  if (rng_.Percent(50)) {
    stopping.end_token_ids = {rng_.Below(vocab), rng_.Below(vocab)};
    if (rng_.Percent(30)) stopping.min_new_tokens = rng_.Below(stopping.max_new_tokens + 1);
  }
  request.arrival = now_;
  if (rng_.Percent(static_cast<std::uint32_t>(config_.percent_deadline))) {
    request.deadline = now_ + milliseconds(rng_.Between(1, 6 * config_.max_tick));
  }
  const std::uint32_t tenant = rng_.Below(static_cast<std::uint32_t>(config_.num_tenants));
  // The first is the greediest.
  if (tenant > 0 && rng_.Percent(60))
    request.tenant = std::string(1, static_cast<char>('A' + tenant));
  request.priority = rng_.Between(-config_.max_priority, config_.max_priority);
  if (rng_.Percent(static_cast<std::uint32_t>(config_.percent_siblings))) {
    request.num_sequences = static_cast<std::uint32_t>(rng_.Between(2, 4));
  }
  return request;
}

// The deadline about which admission, or later a pass, just says yes or no.
void Simulation::DrawTightDeadline(LoadSnapshot load, const QueueView& queue, Request* request) {
  if (load.lowest_prefill_seconds > 0 && rng_.Percent(30)) {
    load.prefill_seconds_per_token = load.lowest_prefill_seconds;
    load.decode_seconds_per_token = load.lowest_decode_seconds;
  }
  const Duration first = PredictFirstToken(*request, load, queue, config_.options);
  const Duration rest =
      FromSeconds(request->stopping.min_new_tokens * load.decode_seconds_per_token);
  request->deadline = now_ + std::max<Duration>(first + rest, milliseconds(1)) +
                      std::chrono::microseconds(rng_.Between(-3000, 6000));
}

void Simulation::Arrive() {
  if (draining_ || static_cast<std::int32_t>(clients_.size()) >= config_.max_live) return;
  Request request = DrawRequest();
  const LoadSnapshot load = scheduler_.Load();
  const QueueView queue = scheduler_.waiting().View(now_);
  const bool old = callers_.empty() && now_ - last_step_ >= CostModel::kKeeps;
  const auto tight = static_cast<std::uint32_t>(config_.percent_tight);
  if ((old || request.deadline != kNoDeadline) && rng_.Percent(tight)) {
    DrawTightDeadline(load, queue, &request);
  }
  // After a silence prices fade.
  const double fade = 5 / std::max(5.0, ToSeconds(now_ - last_step_));
  const absl::Status admitted = Admit(request, load, queue, config_.options, config_.runner);
  if (!admitted.ok()) {
    Require(admitted.code() == absl::StatusCode::kResourceExhausted && RetryAfter(admitted),
            "what can run is refused for load alone, with a hint when to come again");
    if (Reason(admitted) == kDeadlineUnreachable) {
      Require(request.deadline != kNoDeadline, "who has no deadline is not refused for it");
      const double at_best =
          fade * (load.lowest_prefill_seconds * static_cast<double>(request.prompt_tokens.size()) +
                  load.lowest_decode_seconds * request.stopping.min_new_tokens);
      Require(!old || at_best + 1e-8 > ToSeconds(request.deadline - now_),
              "after a silence nobody is refused who was ever fast enough");
      return Met(Rare::kRefusedForDeadline);
    }
    Require(scheduler_.num_waiting() > 0 || config_.options.max_queue == 0,
            "nothing is refused while nobody waits");
    const std::int32_t tenants = queue.NumTenantsWith(request.tenant);
    const auto answers = static_cast<std::int32_t>(request.num_sequences);
    Require(queue.Of(request.tenant).sequences > 0 || tenants == 1 ||
                config_.options.max_queue / tenants < answers,
            "a tenant with nothing in a full queue is let in");
    return Met(Rare::kQueueFull);
  }
  const double own = (old ? fade * load.lowest_prefill_seconds : load.prefill_seconds_per_token) *
                     static_cast<double>(request.prompt_tokens.size());
  const bool too_late =
      request.deadline != kNoDeadline && own - 1e-8 > ToSeconds(request.deadline - now_);
  Require(!too_late, "who cannot have its first token before its deadline is refused");
  const double usual =
      load.prefill_seconds_per_token * static_cast<double>(request.prompt_tokens.size());
  if (request.deadline != kNoDeadline && usual > ToSeconds(request.deadline - now_)) {
    Met(Rare::kProbe);
  }
  TakeRequest(std::move(request));
}

void Simulation::TakeRequest(Request request) {
  Caller& caller = callers_[request.id];
  caller.request = request;
  caller.arrival = arrivals_;
  caller.answers = static_cast<std::int32_t>(request.num_sequences);
  for (std::uint32_t index = 0; index < request.num_sequences; ++index) {
    clients_.emplace(Key(request.id, index), Client(&caller, index));
    tenants_.BeginWait(request.tenant);
  }
  scheduler_.Submit(std::move(request), now_);
}

void Simulation::LaunchStep() {
  const auto most = static_cast<std::size_t>(std::max(1, config_.runner.max_in_flight));
  if (in_flight_.size() >= most) return;
  const std::uint64_t doomed = doomed_;
  StepPlan plan = scheduler_.Schedule(now_);
  TakeEvents();
  if (over_) return;
  // Whether the last one left the queue before or after those that the plan admits is not seen from
  // here, but counts for who comes next.
  if (doomed_ > doomed && !plan.empty() && scheduler_.num_waiting() == 0) level_known_ = false;
  if (plan.empty()) {
    if (in_flight_.empty()) CheckNobodyWaitsInVain();
    return;
  }
  ++result_.steps;
  CheckPlan(plan);
  const absl::StatusOr<StepTicket> ticket = device_.Launch(plan.batch);
  if (!ticket.ok()) return LoseDevice(ticket.status());
  scheduler_.Launched(plan, *ticket);
  in_flight_.push_back({std::move(plan), *ticket});
  if (in_flight_.size() == 2) Met(Rare::kTwoInFlight);
}

void Simulation::CheckPlan(const StepPlan& plan) {
  const ForwardBatch& batch = plan.batch;
  Require(batch.num_tokens() <=
              std::min(config_.options.max_num_batched_tokens, config_.runner.max_step_tokens),
          "a step keeps its budget of tokens");
  Require(batch.num_seqs() <= std::min(config_.options.max_num_seqs, config_.runner.max_step_seqs),
          "a step keeps its limit of sequences");
  Require(plan.prefill_tokens + plan.decode_tokens == batch.num_tokens(), "tokens are counted");
  if (plan.preemptions > 0) {
    Met(Rare::kPreempted);
    if (!in_flight_.empty()) Met(Rare::kPreemptedInFlight);
  }
  if (plan.prefix_cache.evicted_blocks > 0) Met(Rare::kEvicted);
  hits_reported_ += plan.prefix_cache.hit_tokens;
  for (std::size_t i = 0; i < plan.sequences.size(); ++i) CheckPlanned(plan, i);
  for (const std::int32_t block : batch.block_table) {
    result_.fingerprint = Mix(result_.fingerprint, static_cast<std::uint64_t>(block));
  }
}

void Simulation::CheckPlanned(const StepPlan& plan, std::size_t i) {
  const PlannedSequence& planned = plan.sequences[i];
  result_.fingerprint = Mix(result_.fingerprint, planned.id.value());
  Client* const client = FindClient(planned.id, planned.index);
  Require(client != nullptr, "who has ended is not scheduled");
  if (client == nullptr) return;
  const Request& request = client->request();
  Require(request.deadline > now_, "nothing is scheduled after its deadline");
  const std::int32_t begin = plan.batch.context_len[i] - planned.num_tokens;
  if (planned.admission != client->admission) CheckAdmission(client, plan, i, begin);
  const bool first = planned.index == 0 && client->high_water < client->prompt_len();
  if (first && request.deadline != kNoDeadline) {
    const Duration left =
        scheduler_.cost().Predict(client->prompt_len() - begin, request.stopping.min_new_tokens);
    Require(now_ + left <= request.deadline, "no prompt token is spent on a doomed call");
  }
  Require(begin == client->scheduled, "computed positions go on where they ended");
  client->scheduled = begin + planned.num_tokens;
  const std::int32_t again = std::clamp(client->high_water - begin, 0, planned.num_tokens);
  tenants_.Charge(request.tenant, planned.num_tokens - again);
  client->high_water = std::max(client->high_water, client->scheduled);
  client->caller->started = true;
}

// A sequence that is planned for the first time since it waited.
void Simulation::CheckAdmission(Client* client, const StepPlan& plan, std::size_t i,
                                std::int32_t begin) {
  if (client->admission == 0) {
    CheckOrder(*client);
    tenants_.EndWait(client->request().tenant);
  } else {
    ++client->preemptions;
    ++client->caller->preemptions;
    if (client->preemptions == config_.options.max_preemptions) Met(Rare::kMostPreemptions);
    Require(client->caller->ever_stalled || client->generated > client->generated_then,
            "between two preemptions there is progress");
    if (begin > 0) Met(Rare::kResumedFromCache);
  }
  CheckBegin(client, begin);
  if (begin > 0) {
    const BlockId first(
        plan.batch.block_table[static_cast<std::size_t>(plan.batch.block_table_start[i])]);
    Met(scheduler_.kv().references(first) > 1 ? Rare::kHitOnRunning : Rare::kHitOnFree);
    if (client->index > 0) Met(Rare::kSiblingHit);
  }
  const Client* const sibling = client->index > 0 ? FindClient(client->request().id, 0) : nullptr;
  // What the first holds may be forgotten: as a copy of a block of another that was evicted, or for
  // logits of another that were not finite.
  const bool forgotten = flushes_ > 0 ||
                         result_.rare[static_cast<std::size_t>(Rare::kEvicted)] > 0 ||
                         result_.rare[static_cast<std::size_t>(Rare::kNotFinite)] > 0;
  if (room_ && !forgotten && sibling != nullptr && !client->caller->ever_stalled) {
    const std::int32_t size = config_.runner.block_size;
    Require(begin >= (client->prompt_len() - 1) / size * size,
            "answers share the full blocks of their prompt");
  }
  client->admission = plan.sequences[i].admission;
  client->flushes = flushes_;
  client->generated_then = client->generated;
  client->scheduled = begin;
}

// Of those that wait for their first admission, this one may be the first.
void Simulation::CheckOrder(const Client& client) {
  for (const auto& [key, other] : clients_) {
    // An answer after the first waits for that, too.
    if (other.admission != 0 || other.index > 0 || other.caller->cancelled) continue;
    if (other.caller == client.caller) continue;
    const char* const wrong = WrongOrder(client, other, now_);
    Require(*wrong == '\0', wrong);
    const bool later = other.caller->arrival < client.caller->arrival;
    if (client.request().priority < other.request().priority && !later) Met(Rare::kAgedFirst);
    if (client.request().tenant == other.request().tenant) continue;
    if (!turns_alone_ || !level_known_) continue;
    Require(tenants_.tokens(client.request().tenant) <= tenants_.tokens(other.request().tenant),
            "the tenant with the fewest tokens goes first");
    if (later) Met(Rare::kTenantFirst);
  }
}

void Simulation::CheckBegin(Client* client, std::int32_t begin) {
  if (begin == 0) return;
  const auto known = static_cast<std::int32_t>(client->hashes.size());
  Require(begin % config_.runner.block_size == 0, "what is found are full blocks");
  Require(begin < known, "a hit never covers the last token");
  Require(UsesCache(client->request()), "who passes the cache by finds nothing");
  if (begin >= known) return;
  Require(known_prefixes_.contains(Mix(HashOfSalt(client->request()),
                                       client->hashes[static_cast<std::size_t>(begin - 1)])),
          "what is found was computed, under the same tenant and salt");
  if (begin + config_.runner.block_size >= known) Met(Rare::kHitForAllButOne);
  hits_seen_ += begin;
}

void Simulation::CheckNobodyWaitsInVain() {
  for (const auto& [id, caller] : callers_) {
    const bool behind = static_cast<std::int32_t>(caller.generated - caller.delivered) >=
                        config_.options.output_window_tokens;
    Require(caller.stalled && behind,
            absl::StrCat("nothing runs while request ", id.value(), " could"));
  }
}

void Simulation::CommitStep() {
  if (in_flight_.empty()) return;
  const absl::StatusOr<ForwardResult> result = device_.Await(in_flight_.front().ticket);
  if (!result.ok()) return LoseDevice(result.status());
  const InFlight step = std::move(in_flight_.front());
  in_flight_.pop_front();
  // Now and then a step ends late: the machine did something else.
  const bool late = rng_.Percent(1);
  if (late) Met(Rare::kLateStep);
  const milliseconds took(late ? rng_.Between(100, 5000) : rng_.Between(1, 6));
  now_ += took;
  NoteComputed(step.plan);
  scheduler_.Commit(step.plan, *result, took, now_);
  last_step_ = now_;
}

void Simulation::NoteComputed(const StepPlan& plan) {
  const std::int32_t size = config_.runner.block_size;
  for (std::size_t i = 0; i < plan.sequences.size(); ++i) {
    const Client* const found = FindClient(plan.sequences[i].id, plan.sequences[i].index);
    if (found == nullptr || !UsesCache(found->request())) continue;
    // What began before a flush, or with blocks that were given back, is not found.
    if (found->flushes != flushes_ || found->admission != plan.sequences[i].admission) continue;
    const Client& client = *found;
    const std::int32_t end = plan.batch.context_len[i];
    const std::uint64_t salt = HashOfSalt(client.request());
    for (std::int32_t p = end - plan.sequences[i].num_tokens; p < end; ++p) {
      if ((p + 1) % size != 0 || p >= static_cast<std::int32_t>(client.hashes.size())) continue;
      known_prefixes_.insert(Mix(salt, client.hashes[static_cast<std::size_t>(p)]));
    }
  }
}

bool Simulation::InFlightHas(RequestId id) const {
  for (const InFlight& step : in_flight_) {
    for (const PlannedSequence& planned : step.plan.sequences) {
      if (planned.id == id) return true;
    }
  }
  return false;
}

Caller* Simulation::AnyCaller() {
  if (callers_.empty()) return nullptr;
  auto at = callers_.begin();
  std::advance(at, rng_.Below(static_cast<std::uint32_t>(callers_.size())));
  return &at->second;
}

Client* Simulation::FindClient(RequestId id, std::uint32_t index) {
  const auto found = clients_.find({id, index});
  return found == clients_.end() ? nullptr : &found->second;
}

bool Simulation::NeverAdmitted(RequestId id) const { return !callers_.at(id).started; }

void Simulation::CancelAny() {
  Caller* const caller = AnyCaller();
  if (caller == nullptr || rng_.Percent(10)) {
    scheduler_.Cancel(RequestId(arrivals_ + 1000), now_);  // nobody's
    return;
  }
  CancelCaller(caller);
}

void Simulation::CancelCaller(Caller* caller) {
  caller->cancelled = true;
  const RequestId id = caller->request.id;
  if (InFlightHas(id)) Met(Rare::kCancelledInFlight);
  if (NeverAdmitted(id)) Met(Rare::kCancelledWaiting);
  scheduler_.Cancel(id, now_);
  TakeEvents();
  Require(!callers_.contains(id), "a cancelled request ends at once");
}

void Simulation::Disconnect() {
  Caller* const caller = AnyCaller();
  if (caller == nullptr || caller->gone_for >= 0) return;
  caller->stalled = true;
  caller->ever_stalled = true;
  caller->gone_for = 0;
}

// The transport notices a lost connection after some time, and then cancels.
void Simulation::CancelTheGone() {
  std::vector<RequestId> noticed;
  for (auto& [id, caller] : callers_) {
    if (caller.gone_for < 0) continue;
    if (++caller.gone_for > kEventsToNotice || rng_.Percent(20)) noticed.push_back(id);
  }
  for (const RequestId id : noticed) {
    const auto found = callers_.find(id);
    if (found != callers_.end()) CancelCaller(&found->second);
  }
}

void Simulation::Flush() {
  const std::int32_t free = scheduler_.kv().num_cached();
  if (scheduler_.FlushPrefixCache() > free) Met(Rare::kFlushedRunning);
  known_prefixes_.clear();
  ++flushes_;
}

void Simulation::Stall() {
  Caller* const caller = AnyCaller();
  if (caller == nullptr || caller->gone_for >= 0) return;
  caller->stalled = !caller->stalled;
  caller->ever_stalled = true;
}

void Simulation::EndAnswer(const Key& key) {
  const auto found = clients_.find(key);
  if (found->second.admission == 0) tenants_.EndWait(found->second.request().tenant);
  --found->second.caller->answers;
  clients_.erase(found);
}

bool Simulation::EndCaller(RequestId id) {
  const auto caller = callers_.find(id);
  if (caller == callers_.end()) return false;
  for (std::uint32_t index = 0; index < caller->second.request.num_sequences; ++index) {
    if (FindClient(id, index) != nullptr) EndAnswer({id, index});
  }
  callers_.erase(caller);
  return true;
}

// A device without memory is as good as none: its callers do not hear of a queue that is full.
void Simulation::LoseDevice(const absl::Status& why) {
  if (!in_flight_.empty()) Met(Rare::kDeviceLostInFlight);
  if (absl::IsResourceExhausted(why) && !callers_.empty()) Met(Rare::kDeviceOutOfMemory);
  in_flight_.clear();
  scheduler_.FailAll(why, now_);
  for (TokenEvent& event : scheduler_.TakeEvents()) {
    const auto* failed = std::get_if<FailedEvent>(&event.what);
    const auto found = callers_.find(event.id);
    Require(failed != nullptr && found != callers_.end(), "a lost device fails who is left, once");
    if (failed == nullptr || found == callers_.end()) continue;
    Require(failed->status.code() == (found->second.generated == 0 ? absl::StatusCode::kUnavailable
                                                                   : absl::StatusCode::kInternal),
            "a lost device is UNAVAILABLE before the first token and INTERNAL after it");
    EndCaller(event.id);
  }
  Require(callers_.empty(), "a lost device ends all");
  over_ = true;
}

void Simulation::CutOff() {
  while (!over_ && !in_flight_.empty()) {
    CommitStep();
    TakeEvents();
  }
  if (over_) return;
  scheduler_.ShutDownAll(now_);
  for (TokenEvent& event : scheduler_.TakeEvents()) {
    Require(std::holds_alternative<ShutDownEvent>(event.what) && EndCaller(event.id),
            "the end of a drain cuts off who is left, once");
    Met(Rare::kCutOffByDrain);
  }
  Require(callers_.empty(), "the end of a drain cuts off all");
}

void Simulation::TakeEvents() {
  for (TokenEvent& event : scheduler_.TakeEvents()) {
    const bool known = callers_.contains(event.id);
    Require(known, "nothing follows the end of a request");
    if (!known) continue;
    if (const auto* tokens = std::get_if<TokensEvent>(&event.what)) {
      Client* const client = FindClient(event.id, tokens->index);
      Require(client != nullptr, "nothing follows the end of an answer");
      if (client != nullptr) TakeTokens(client, *tokens);
    } else if (const auto* finished = std::get_if<FinishedEvent>(&event.what)) {
      TakeFinish(event, *finished);
    } else {
      TakeEnd(event);
    }
  }
}

void Simulation::TakeTokens(Client* client, const TokensEvent& event) {
  const auto vocab = static_cast<std::uint32_t>(config_.runner.vocab);
  for (const SampledToken& token : event.tokens) {
    Require(!client->complete, "nothing is generated beyond the end");
    Require(token.token == client->NextToken(vocab), "each token is the one it would be alone");
    client->Extend(token.token);
    ++client->generated;
    ++client->caller->generated;
    const StoppingParams& stopping = client->request().stopping;
    const auto& ends = stopping.end_token_ids;
    const bool stop = std::find(ends.begin(), ends.end(), token.token) != ends.end();
    if (stop) Met(Rare::kStopToken);
    client->complete = stop || client->generated == stopping.max_new_tokens;
  }
}

void Simulation::CheckUsage(const Caller& caller, const RequestUsage& usage) {
  const auto prompt = static_cast<std::uint32_t>(caller.request.prompt_tokens.size());
  Require(usage.prompt_tokens == prompt && usage.completion_tokens == caller.generated,
          "usage counts the tokens");
  Require(usage.cached_tokens < prompt &&
              usage.cached_tokens % static_cast<std::uint32_t>(config_.runner.block_size) == 0,
          "usage counts full blocks of the prompt as cached");
  Require(usage.cached_tokens == 0 || !caller.request.bypass_prefix_cache,
          "who passes the cache by has nothing from it");
  Require(usage.preemptions >= caller.preemptions, "usage counts preemptions");
  Require(caller.ever_stalled ||
              usage.preemptions <= config_.options.max_preemptions * caller.request.num_sequences,
          "nobody is preempted for ever");
}

void Simulation::TakeFinish(const TokenEvent& event, const FinishedEvent& finished) {
  const Client* const client = FindClient(event.id, finished.index);
  Require(client != nullptr && client->complete, "who finishes is complete");
  if (client == nullptr) return;
  Require(client->high_water >= client->prompt_len(), "who finishes has its prompt computed");
  const Caller& caller = *client->caller;
  CheckUsage(caller, finished.usage);
  Require(finished.last == (caller.answers == 1), "the last answer ends the request");
  if (finished.last) {
    if (caller.gone_for >= 0) Met(Rare::kEndedWhileGone);
    EndCaller(event.id);
  } else {
    EndAnswer({event.id, finished.index});
  }
}

void Simulation::TakeEnd(const TokenEvent& event) {
  const Caller& caller = callers_.at(event.id);
  if (caller.gone_for >= 0 && !caller.cancelled) Met(Rare::kEndedWhileGone);
  if (std::holds_alternative<CancelledEvent>(event.what)) {
    Require(caller.cancelled, "only who was cancelled ends so");
  } else {
    const auto* failed = std::get_if<FailedEvent>(&event.what);
    Require(failed != nullptr, "nobody is cut off but at the end of a drain");
    if (failed != nullptr) TakeFailure(caller, failed->status);
  }
  EndCaller(event.id);
}

// Answers that wait behind others of a request that has started are not displaced, so who has the
// most is told where requests have one.
void Simulation::CheckDisplaced(const Request& request) {
  if (config_.percent_siblings > 0) return;
  std::map<std::string, std::int64_t> tokens;
  for (const auto& [key, client] : clients_) {
    if (client.admission == 0) tokens[client.request().tenant] += client.prompt_len();
  }
  const std::int32_t own = tenants_.waiting(request.tenant);
  for (const auto& [tenant, waiting] : tokens) {
    Require(tenants_.waiting(tenant) <= own || waiting <= tokens[request.tenant],
            "who has the most in the queue is displaced");
  }
}

void Simulation::TakeFailure(const Caller& caller, const absl::Status& status) {
  const Request& request = caller.request;
  switch (status.code()) {
    case absl::StatusCode::kDeadlineExceeded: {
      if (request.deadline <= now_) {
        return Met(caller.started ? Rare::kExpiredRunning : Rare::kExpiredWaiting);
      }
      const auto prompt = static_cast<std::int64_t>(request.prompt_tokens.size());
      const Duration at_most = scheduler_.cost().Predict(prompt, request.stopping.min_new_tokens);
      Require(caller.generated == 0 && now_ + at_most > request.deadline,
              "a deadline fails who is past it, or cannot meet it");
      ++doomed_;
      return Met(Rare::kDoomed);
    }
    case absl::StatusCode::kResourceExhausted:
      Require(!caller.started && config_.num_tenants > 1 && RetryAfter(status),
              "only who never ran is displaced, by another tenant");
      CheckDisplaced(request);
      return Met(Rare::kDisplaced);
    case absl::StatusCode::kAborted:
      Require(caller.generated - caller.delivered > 0, "who has read all is not aborted");
      return Met(Rare::kAborted);
    case absl::StatusCode::kInternal:
      Require(--spoiled_ >= 0, "only logits that are not finite fail a request inside");
      return Met(Rare::kNotFinite);
    default:
      return Require(false, absl::StrCat("a request failed with ", std::string(status.ToString())));
  }
}

void Simulation::CreditReaders() {
  for (auto& [id, caller] : callers_) {
    if (caller.stalled || caller.delivered == caller.generated) continue;
    caller.delivered = caller.generated;
    scheduler_.Credit(id, caller.delivered);
  }
}

// All readers read and nothing arrives: everything ends, and every block comes home.
void Simulation::RunToTheEnd() {
  draining_ = true;
  for (auto& [id, caller] : callers_) caller.stalled = caller.gone_for >= 0;
  CreditReaders();
  for (int i = 0; i < kEventsToEnd && !over_; ++i) {
    if (callers_.empty() && in_flight_.empty()) break;
    Do(in_flight_.empty() || rng_.Percent(50) ? Event::kLaunch : Event::kCommit);
  }
  if (over_) return;
  Require(callers_.empty() && in_flight_.empty(), "everything comes to an end");
  Require(scheduler_.kv().num_free() == scheduler_.kv().num_blocks() &&
              scheduler_.kv().num_deferred() == 0,
          "every block comes home");
  Require(hits_reported_ == hits_seen_, "hits are counted to the token");
}

}  // namespace millrace::sim
