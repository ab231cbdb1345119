#include "tests/sim/simulation.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/token_bytes.h"
#include "scheduler/admission.h"

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
    "two steps in flight"};

namespace {

// More than any episode takes to end by itself once nothing arrives and all readers read.
constexpr int kEventsToEnd = 20000;
constexpr std::uint32_t kMostPreemptions = 8;

std::shared_ptr<const TokenBytes> OneByteEach(std::int32_t vocab) {
  std::vector<std::string> bytes(static_cast<std::size_t>(vocab), "x");
  std::vector<bool> special(static_cast<std::size_t>(vocab), false);
  return std::make_shared<TokenBytes>(std::move(bytes), std::move(special));
}

std::uint64_t HashOf(const std::string& salt) {
  std::uint64_t h = 0x5A17;
  for (const char c : salt) h = Mix(h, static_cast<std::uint64_t>(c));
  return h;
}

}  // namespace

Simulation::Simulation(const SimConfig& config)
    : config_(config),
      rng_(Mix(config.seed, 0xE7E7)),
      device_(config.runner),
      scheduler_(config.options, config.runner, OneByteEach(config.runner.vocab)),
      now_(std::chrono::seconds(1)) {}

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
    if (draining_ && clients_.empty() && in_flight_.empty()) over_ = true;
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
  CancelClient(&clients_.at(id));
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
    case Event::kStall:
      Stall();
      break;
    case Event::kTick:
      now_ += milliseconds(rng_.Between(1, 50));
      break;
    case Event::kSpoil:
      device_.SpoilNextRow(rng_.Below(64));
      ++spoiled_;
      break;
    case Event::kFailLaunch:
      device_.FailNextLaunch();
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
  stopping.max_new_tokens = static_cast<std::uint32_t>(rng_.Between(1, config_.max_output));
  if (rng_.Percent(50)) {
    stopping.end_token_ids = {rng_.Below(vocab), rng_.Below(vocab)};
    if (rng_.Percent(30)) stopping.min_new_tokens = rng_.Below(stopping.max_new_tokens + 1);
  }
  request.arrival = now_;
  if (rng_.Percent(static_cast<std::uint32_t>(config_.percent_deadline))) {
    request.deadline = now_ + milliseconds(rng_.Between(1, 300));
  }
  return request;
}

LoadSnapshot Simulation::Snapshot() const {
  LoadSnapshot load;
  load.running = scheduler_.num_running();
  load.waiting = scheduler_.num_waiting();
  load.waiting_prompt_tokens = scheduler_.waiting_prompt_tokens();
  load.kv_blocks_total = scheduler_.kv().num_blocks();
  return load;
}

void Simulation::Arrive() {
  if (draining_ || static_cast<std::int32_t>(clients_.size()) >= config_.max_live) return;
  Request request = DrawRequest();
  const absl::Status admitted =
      Admit(request, Snapshot(), Unseen{}, config_.options, config_.runner);
  if (!admitted.ok()) {
    Require(admitted.code() == absl::StatusCode::kResourceExhausted,
            "what can run is refused for load alone");
    Require(scheduler_.num_waiting() > 0, "nothing is refused while nobody waits");
    Met(Rare::kQueueFull);
    return;
  }
  TakeRequest(std::move(request));
}

void Simulation::TakeRequest(Request request) {
  Client client(request);
  client.arrival = arrivals_;
  clients_.emplace(request.id, std::move(client));
  scheduler_.Submit(std::move(request));
}

void Simulation::LaunchStep() {
  const auto most = static_cast<std::size_t>(std::max(1, config_.runner.max_in_flight));
  if (in_flight_.size() >= most) return;
  StepPlan plan = scheduler_.Schedule(now_);
  TakeEvents();
  if (over_) return;
  if (plan.empty()) {
    if (in_flight_.empty()) CheckNobodyWaitsInVain();
    return;
  }
  ++result_.steps;
  CheckPlan(plan);
  const absl::StatusOr<StepTicket> ticket = device_.Launch(plan.batch);
  if (!ticket.ok()) return LoseDevice();
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
  const auto found = clients_.find(planned.id);
  Require(found != clients_.end(), "who has ended is not scheduled");
  if (found == clients_.end()) return;
  Client& client = found->second;
  Require(client.request.deadline > now_, "nothing is scheduled after its deadline");
  const std::int32_t begin = plan.batch.context_len[i] - planned.num_tokens;
  if (planned.admission != client.admission) {
    if (client.admission == 0) {
      for (const auto& [id, other] : clients_) {
        Require(other.admission != 0 || other.arrival >= client.arrival || other.cancelled,
                "nobody overtakes who came before");
      }
    } else {
      ++client.preemptions;
      Require(client.ever_stalled || client.generated > client.generated_then,
              "between two preemptions there is progress");
      if (begin > 0) Met(Rare::kResumedFromCache);
    }
    CheckBegin(&client, begin);
    if (begin > 0) {
      const BlockId first(
          plan.batch.block_table[static_cast<std::size_t>(plan.batch.block_table_start[i])]);
      Met(scheduler_.kv().references(first) > 1 ? Rare::kHitOnRunning : Rare::kHitOnFree);
    }
    client.admission = planned.admission;
    client.generated_then = client.generated;
    client.scheduled = begin;
  }
  Require(begin == client.scheduled, "computed positions go on where they ended");
  client.scheduled = begin + planned.num_tokens;
}

void Simulation::CheckBegin(Client* client, std::int32_t begin) {
  if (begin == 0) return;
  const auto known = static_cast<std::int32_t>(client->hashes.size());
  Require(begin % config_.runner.block_size == 0, "what is found are full blocks");
  Require(begin < known, "a hit never covers the last token");
  Require(!client->request.bypass_prefix_cache, "who passes the cache by finds nothing");
  if (begin >= known) return;
  Require(known_prefixes_.contains(Mix(HashOf(client->request.cache_salt),
                                       client->hashes[static_cast<std::size_t>(begin - 1)])),
          "what is found was computed, under the same salt");
  if (begin + config_.runner.block_size >= known) Met(Rare::kHitForAllButOne);
  hits_seen_ += begin;
}

void Simulation::CheckNobodyWaitsInVain() {
  for (const auto& [id, client] : clients_) {
    const bool behind = static_cast<std::int32_t>(client.generated - client.delivered) >=
                        config_.options.output_window_tokens;
    Require(client.stalled && behind,
            absl::StrCat("nothing runs while request ", id.value(), " could"));
  }
}

void Simulation::CommitStep() {
  if (in_flight_.empty()) return;
  const absl::StatusOr<ForwardResult> result = device_.Await(in_flight_.front().ticket);
  if (!result.ok()) return LoseDevice();
  const InFlight step = std::move(in_flight_.front());
  in_flight_.pop_front();
  const milliseconds took(rng_.Between(1, 6));
  now_ += took;
  NoteComputed(step.plan);
  scheduler_.Commit(step.plan, *result, took, now_);
}

void Simulation::NoteComputed(const StepPlan& plan) {
  const std::int32_t size = config_.runner.block_size;
  for (std::size_t i = 0; i < plan.sequences.size(); ++i) {
    const auto found = clients_.find(plan.sequences[i].id);
    if (found == clients_.end() || found->second.request.bypass_prefix_cache) continue;
    const Client& client = found->second;
    const std::int32_t end = plan.batch.context_len[i];
    const std::uint64_t salt = HashOf(client.request.cache_salt);
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

Client* Simulation::AnyClient() {
  if (clients_.empty()) return nullptr;
  auto at = clients_.begin();
  std::advance(at, rng_.Below(static_cast<std::uint32_t>(clients_.size())));
  return &at->second;
}

void Simulation::CancelAny() {
  Client* const client = AnyClient();
  if (client == nullptr || rng_.Percent(10)) {
    scheduler_.Cancel(RequestId(arrivals_ + 1000), now_);  // nobody's
    return;
  }
  CancelClient(client);
}

void Simulation::CancelClient(Client* client) {
  client->cancelled = true;
  if (InFlightHas(client->request.id)) Met(Rare::kCancelledInFlight);
  if (client->admission == 0) Met(Rare::kCancelledWaiting);
  const RequestId id = client->request.id;
  scheduler_.Cancel(id, now_);
  TakeEvents();
  Require(!clients_.contains(id), "a cancelled request ends at once");
}

void Simulation::Stall() {
  Client* const client = AnyClient();
  if (client == nullptr) return;
  client->stalled = !client->stalled;
  client->ever_stalled = true;
}

void Simulation::LoseDevice() {
  if (!in_flight_.empty()) Met(Rare::kDeviceLostInFlight);
  in_flight_.clear();
  scheduler_.FailAll(absl::InternalError("lost"), now_);
  for (TokenEvent& event : scheduler_.TakeEvents()) {
    const auto* failed = std::get_if<FailedEvent>(&event.what);
    const auto found = clients_.find(event.id);
    Require(failed != nullptr && found != clients_.end(), "a lost device fails who is left, once");
    if (failed == nullptr || found == clients_.end()) continue;
    Require(failed->status.code() == (found->second.generated == 0 ? absl::StatusCode::kUnavailable
                                                                   : absl::StatusCode::kInternal),
            "a lost device is UNAVAILABLE before the first token and INTERNAL after it");
    clients_.erase(found);
  }
  Require(clients_.empty(), "a lost device ends all");
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
    Require(std::holds_alternative<ShutDownEvent>(event.what) && clients_.erase(event.id) == 1,
            "the end of a drain cuts off who is left, once");
    Met(Rare::kCutOffByDrain);
  }
  Require(clients_.empty(), "the end of a drain cuts off all");
}

void Simulation::TakeEvents() {
  for (TokenEvent& event : scheduler_.TakeEvents()) {
    const auto found = clients_.find(event.id);
    Require(found != clients_.end(), "nothing follows the end of a request");
    if (found == clients_.end()) continue;
    if (const auto* tokens = std::get_if<TokensEvent>(&event.what)) {
      TakeTokens(&found->second, *tokens);
      continue;
    }
    TakeEnd(&found->second, event);
    clients_.erase(found);
  }
}

void Simulation::TakeTokens(Client* client, const TokensEvent& event) {
  const auto vocab = static_cast<std::uint32_t>(config_.runner.vocab);
  for (const SampledToken& token : event.tokens) {
    Require(!client->complete, "nothing is generated beyond the end");
    Require(token.token == client->NextToken(vocab), "each token is the one it would be alone");
    client->Extend(token.token);
    ++client->generated;
    const auto& ends = client->request.stopping.end_token_ids;
    const bool stop = std::find(ends.begin(), ends.end(), token.token) != ends.end();
    if (stop) Met(Rare::kStopToken);
    client->complete = stop || client->generated == client->request.stopping.max_new_tokens;
  }
}

void Simulation::CheckUsage(const Client& client, const RequestUsage& usage) {
  const auto prompt = static_cast<std::uint32_t>(client.request.prompt_tokens.size());
  Require(usage.prompt_tokens == prompt && usage.completion_tokens == client.generated,
          "usage counts the tokens");
  Require(usage.cached_tokens < prompt &&
              usage.cached_tokens % static_cast<std::uint32_t>(config_.runner.block_size) == 0,
          "usage counts full blocks of the prompt as cached");
  Require(usage.cached_tokens == 0 || !client.request.bypass_prefix_cache,
          "who passes the cache by has nothing from it");
  Require(usage.preemptions >= client.preemptions, "usage counts preemptions");
  Require(client.ever_stalled || usage.preemptions <= kMostPreemptions,
          "nobody is preempted for ever");
}

void Simulation::TakeEnd(Client* client, const TokenEvent& event) {
  if (const auto* finished = std::get_if<FinishedEvent>(&event.what)) {
    Require(client->complete, "who finishes is complete");
    return CheckUsage(*client, finished->usage);
  }
  if (std::holds_alternative<CancelledEvent>(event.what)) {
    return Require(client->cancelled, "only who was cancelled ends so");
  }
  const auto* failed = std::get_if<FailedEvent>(&event.what);
  Require(failed != nullptr, "nobody is cut off but at the end of a drain");
  if (failed == nullptr) return;
  switch (failed->status.code()) {
    case absl::StatusCode::kDeadlineExceeded:
      Require(client->request.deadline <= now_, "a deadline fails who is past it");
      return Met(client->admission == 0 ? Rare::kExpiredWaiting : Rare::kExpiredRunning);
    case absl::StatusCode::kAborted:
      Require(client->generated - client->delivered > 0, "who has read all is not aborted");
      return Met(Rare::kAborted);
    case absl::StatusCode::kInternal:
      Require(--spoiled_ >= 0, "only logits that are not finite fail a request inside");
      return Met(Rare::kNotFinite);
    default:
      return Require(
          false, absl::StrCat("a request failed with ", std::string(failed->status.ToString())));
  }
}

void Simulation::CreditReaders() {
  for (auto& [id, client] : clients_) {
    if (client.stalled || client.delivered == client.generated) continue;
    client.delivered = client.generated;
    scheduler_.Credit(id, client.delivered);
  }
}

// All readers read and nothing arrives: everything ends, and every block comes home.
void Simulation::RunToTheEnd() {
  draining_ = true;
  for (auto& [id, client] : clients_) client.stalled = false;
  CreditReaders();
  for (int i = 0; i < kEventsToEnd && !over_; ++i) {
    if (clients_.empty() && in_flight_.empty()) break;
    Do(in_flight_.empty() || rng_.Percent(50) ? Event::kLaunch : Event::kCommit);
  }
  if (over_) return;
  Require(clients_.empty() && in_flight_.empty(), "everything comes to an end");
  Require(scheduler_.kv().num_free() == scheduler_.kv().num_blocks() &&
              scheduler_.kv().num_deferred() == 0,
          "every block comes home");
  Require(hits_reported_ >= hits_seen_, "no hit is uncounted");
}

}  // namespace millrace::sim
