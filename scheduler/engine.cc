#include "scheduler/engine.h"

#include <atomic>
#include <deque>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/thread_name.h"
#include "scheduler/admission.h"
#include "scheduler/recorded_scheduler.h"
#include "scheduler/submission_channel.h"
#include "scheduler/trace.h"

namespace millrace {
namespace {

// tokens_per_second looks back this far: long enough to be steady, short enough to show a change.
constexpr Duration kRateWindow = std::chrono::seconds(5);

// Tokens generated over the last seconds. Engine thread only.
class RateMeter {
 public:
  void Add(std::int64_t tokens, TimePoint now) {
    samples_.push_back({now, tokens});
    total_ += tokens;
    Trim(now);
  }
  double PerSecond(TimePoint now) {
    Trim(now);
    return static_cast<double>(total_) / ToSeconds(kRateWindow);
  }

 private:
  struct Sample {
    TimePoint at;
    std::int64_t tokens;
  };
  void Trim(TimePoint now) {
    while (!samples_.empty() && samples_.front().at + kRateWindow < now) {
      total_ -= samples_.front().tokens;
      samples_.pop_front();
    }
  }
  std::deque<Sample> samples_;
  std::int64_t total_ = 0;
};

// What was accepted and is not in what the scheduler published, in all and by tenant.
class Unpublished {
 public:
  void Add(const Request& request, int sign = 1) {
    Add(request.tenant, {static_cast<std::int32_t>(request.num_sequences) * sign,
                         static_cast<std::int64_t>(request.prompt_tokens.size()) * sign});
  }
  void Subtract(const Unpublished& other) {
    for (const auto& [tenant, unseen] : other.by_tenant_) {
      Add(tenant, {-unseen.sequences, -unseen.prompt_tokens});
    }
  }
  const Unseen& all() const { return all_; }
  const std::map<std::string, Unseen>& by_tenant() const { return by_tenant_; }

 private:
  void Add(const std::string& tenant, const Unseen& more) {
    Unseen& own = by_tenant_[tenant];
    for (Unseen* sum : {&all_, &own}) {
      sum->sequences += more.sequences;
      sum->prompt_tokens += more.prompt_tokens;
    }
    if (own.sequences == 0) by_tenant_.erase(tenant);
  }

  Unseen all_;
  std::map<std::string, Unseen> by_tenant_;
};

class ThreadedEngine final : public Engine {
 public:
  ThreadedEngine(const SchedulerOptions& options, ModelRunner* runner,
                 std::shared_ptr<const TokenBytes> token_bytes, const Clock* clock,
                 TokenChannel* out, std::unique_ptr<TraceWriter> trace)
      : options_(options),
        runner_(runner),
        clock_(clock),
        out_(out),
        scheduler_(options, runner->info(), std::move(token_bytes), std::move(trace)) {
    published_.kv_blocks_total = runner->info().num_kv_blocks;
  }

  ~ThreadedEngine() override {
    if (thread_.joinable()) {
      submissions_.Close(clock_->Now());
      thread_.join();
    }
  }

  void Start() override {
    thread_ = std::thread([this] {
      NameThisThread(kEngineThread);
      Loop();
    });
  }

  absl::Status Submit(Request request) override {
    Unpublished one;
    one.Add(request);
    {
      // Judged and counted under one lock, so that two callers cannot both take the last place.
      MutexLock lock(&mutex_);
      MILLRACE_RETURN_IF_ERROR(Admit(request, published_, unseen_.all(), QueueOf(request.tenant),
                                     options_, runner_->info()));
      unseen_.Add(request);
    }
    if (submissions_.Submit(std::move(request))) return absl::OkStatus();
    MutexLock lock(&mutex_);
    unseen_.Subtract(one);
    return absl::UnavailableError("the server is draining");
  }

  void Cancel(RequestId id) override { submissions_.Control(CancelRequest{id}); }
  void Credit(RequestId id, std::uint64_t tokens_delivered) override {
    submissions_.Control(CreditTokens{id, tokens_delivered});
  }

  LoadSnapshot snapshot() const override {
    MutexLock lock(&mutex_);
    LoadSnapshot load = published_;
    // What was accepted while a step runs waits too.
    load.waiting += unseen_.all().sequences;
    load.waiting_prompt_tokens += unseen_.all().prompt_tokens;
    return load;
  }

  void BeginDrain(TimePoint deadline) override {
    {
      MutexLock lock(&mutex_);
      published_.accepting = false;
    }
    submissions_.Close(deadline);
  }

  void Join() override {
    if (thread_.joinable()) thread_.join();
  }

 private:
  struct InFlight {
    StepPlan plan;
    StepTicket ticket;
    TimePoint launched;
    Duration schedule_duration;
  };

  TenantQueue QueueOf(const std::string& tenant) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    TenantQueue queue;
    queue.tenants = 1;  // itself
    for (const auto& [name, waiting] : waiting_by_tenant_) {
      if (name != tenant) ++queue.tenants;
    }
    for (const auto& [name, unseen] : unseen_.by_tenant()) {
      if (name != tenant && !waiting_by_tenant_.contains(name)) ++queue.tenants;
    }
    if (const auto found = waiting_by_tenant_.find(tenant); found != waiting_by_tenant_.end()) {
      queue.own += found->second.sequences;
      queue.own_prompt_tokens += found->second.prompt_tokens;
    }
    const auto& unseen = unseen_.by_tenant();
    if (const auto found = unseen.find(tenant); found != unseen.end()) {
      queue.own += found->second.sequences;
      queue.own_prompt_tokens += found->second.prompt_tokens;
    }
    return queue;
  }

  void Loop() {
    while (!Done()) {
      const bool progress = Step();
      // Nothing runs and nothing can: wait for news, or for time to change something.
      const bool wait = !progress && in_flight_.empty();
      Receive(wait);
    }
    Publish(EngineOutput{});  // a cancel may have ended the last request just now
    out_->Close();
  }

  bool Done() {
    if (!closed_) return false;
    if (scheduler_->idle() && in_flight_.empty()) return true;
    if (clock_->Now() < drain_deadline_) return false;
    while (!in_flight_.empty()) AwaitOldest();
    scheduler_.ShutDownAll(clock_->Now());
    Publish(EngineOutput{});
    return true;
  }

  void Receive(bool wait) {
    const TimePoint until =
        closed_ ? std::min(scheduler_->NextTimeout(), drain_deadline_) : scheduler_->NextTimeout();
    SubmissionChannel::Batch batch = submissions_.Receive(wait, until);
    closed_ = batch.closed;
    drain_deadline_ = batch.drain_deadline;
    const TimePoint now = clock_->Now();
    for (Submission& submission : batch.submissions) {
      if (auto* submit = std::get_if<SubmitRequest>(&submission)) {
        seen_.Add(submit->request);
        scheduler_.Submit(std::move(submit->request), now);
      } else if (const auto* cancel = std::get_if<CancelRequest>(&submission)) {
        scheduler_.Cancel(cancel->id, now);
      } else {
        const auto& credit = std::get<CreditTokens>(submission);
        scheduler_.Credit(credit.id, credit.tokens_delivered);
      }
    }
    // What this changed is published with the step it leads to; after a failure there is none.
    if (!failed_) return;
    scheduler_.FailAll(absl::UnavailableError("an earlier step failed"), now);
    Publish(EngineOutput{});
  }

  // Launches or awaits; false when there is nothing to do.
  bool Step() {
    if (failed_) return false;
    if (static_cast<std::int32_t>(in_flight_.size()) < std::max(1, runner_->info().max_in_flight) &&
        Launch()) {
      // The device computes while the host goes on, if it can.
      if (static_cast<std::int32_t>(in_flight_.size()) < runner_->info().max_in_flight) return true;
    }
    if (in_flight_.empty()) return false;
    AwaitOldest();
    return true;
  }

  bool Launch() {
    const TimePoint begin = clock_->Now();
    StepPlan plan = scheduler_.Schedule(begin);
    // Before the step runs: who waited and runs now is seen to run, and expired requests end even
    // when nothing does.
    Publish(EngineOutput{});
    if (plan.empty()) return false;
    const TimePoint launched = clock_->Now();
    absl::StatusOr<StepTicket> ticket = runner_->Launch(plan.batch);
    if (!ticket.ok()) {
      FailDevice(ticket.status());
      return false;
    }
    scheduler_.Launched(plan, *ticket);
    in_flight_.push_back({std::move(plan), *ticket, launched, launched - begin});
    return true;
  }

  void AwaitOldest() {
    InFlight step = std::move(in_flight_.front());
    in_flight_.pop_front();
    absl::StatusOr<ForwardResult> result = runner_->Await(step.ticket);
    if (!result.ok()) {
      FailDevice(result.status());
      return;
    }
    const TimePoint now = clock_->Now();
    // Steps overlap when two are in flight: a step's own time begins when the one before it ended.
    const TimePoint began = std::max(step.launched, last_step_);
    scheduler_.Commit(step.plan, *result, now - began, now);
    last_step_ = now;
    EngineOutput output;
    output.has_step = true;
    StepStats& stats = output.step;
    stats.duration = now - began;
    stats.schedule_duration = step.schedule_duration + (clock_->Now() - now);
    stats.prefill_tokens = step.plan.prefill_tokens;
    stats.decode_tokens = step.plan.decode_tokens;
    stats.sequences = static_cast<std::int32_t>(step.plan.sequences.size());
    stats.preemptions = step.plan.preemptions;
    stats.recomputed_tokens = step.plan.recomputed_tokens;
    stats.prefix_cache = step.plan.prefix_cache;
    stats.moe = runner_->info().moe;
    stats.experts = std::move(result->moe);
    rate_.Add(static_cast<std::int64_t>(result->sampled.size()), now);
    Publish(std::move(output));
  }

  void FailDevice(const absl::Status& why) {
    failed_ = true;
    // The loop ends once it has answered what was submitted before this; the closed token channel
    // tells the process.
    submissions_.Close(clock_->Now());
    // No step will be awaited again; what they use stays with the device.
    in_flight_.clear();
    {
      MutexLock lock(&mutex_);
      published_.failed = true;
    }
    scheduler_.FailAll(why, clock_->Now());
    Publish(EngineOutput{});
  }

  // Makes the state visible, then sends what happened: who sees an event sees its effect in the
  // snapshot.
  void Publish(EngineOutput output) {
    output.events = scheduler_.TakeEvents();
    const TimePoint now = clock_->Now();
    {
      MutexLock lock(&mutex_);
      unseen_.Subtract(seen_);
      seen_ = {};
      waiting_by_tenant_ = scheduler_->shares().waiting();
      published_.running = scheduler_->num_running();
      published_.waiting = scheduler_->num_waiting();
      published_.waiting_prompt_tokens = scheduler_->waiting_prompt_tokens();
      published_.prompt_backlog = scheduler_->prompt_backlog();
      const CostModel& cost = scheduler_->cost();
      published_.prefill_seconds_per_token = cost.prefill_pace();
      published_.decode_seconds_per_token = cost.decode_seconds();
      published_.seconds_per_turn = cost.seconds_per_turn();
      published_.kv_blocks_used = scheduler_->kv().num_blocks() - scheduler_->kv().num_free();
      published_.kv_blocks_cached = scheduler_->kv().num_cached();
      published_.tokens_per_second = rate_.PerSecond(now);
      const TimePoint oldest = scheduler_->oldest_arrival();
      published_.oldest_wait = oldest == kNoDeadline ? Duration::zero() : now - oldest;
      published_.last_step = last_step_;
    }
    if (!output.events.empty() || output.has_step) out_->Send(std::move(output));
  }

  const SchedulerOptions options_;
  ModelRunner* const runner_;
  const Clock* const clock_;
  TokenChannel* const out_;
  SubmissionChannel submissions_;
  std::thread thread_;

  mutable Mutex mutex_;
  LoadSnapshot published_ ABSL_GUARDED_BY(mutex_);
  Unpublished unseen_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, FairShare::Waiting> waiting_by_tenant_ ABSL_GUARDED_BY(mutex_);

  // Engine thread only.
  RecordedScheduler scheduler_;
  std::deque<InFlight> in_flight_;
  Unpublished seen_;  // received since the last publication
  RateMeter rate_;
  TimePoint last_step_{};
  bool closed_ = false;
  bool failed_ = false;
  TimePoint drain_deadline_ = kNoDeadline;
};

absl::Status CheckOptions(const SchedulerOptions& options) {
  if (options.max_num_seqs < 1 || options.max_num_batched_tokens < 1 || options.max_queue < 0 ||
      options.max_queue_tokens < 0 || options.output_window_tokens < 1) {
    return absl::InvalidArgumentError("scheduler limits: want at least 1, queues at least 0");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    const SchedulerOptions& options, ModelRunner* runner,
    std::shared_ptr<const TokenBytes> token_bytes, const Clock* clock, TokenChannel* out) {
  MILLRACE_RETURN_IF_ERROR(CheckOptions(options));
  SchedulerOptions resolved = options;
  if (resolved.max_queue_tokens == 0) {
    resolved.max_queue_tokens =
        std::int64_t{4} * runner->info().num_kv_blocks * runner->info().block_size;
  }
  std::unique_ptr<TraceWriter> trace;
  if (!options.record_path.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(
        trace, TraceWriter::Create(options.record_path, resolved, runner->info(), token_bytes));
  }
  return std::make_unique<ThreadedEngine>(resolved, runner, std::move(token_bytes), clock, out,
                                          std::move(trace));
}

}  // namespace millrace
