#include "scheduler/engine.h"

#include <atomic>
#include <deque>
#include <thread>
#include <utility>
#include <variant>

#include "base/log.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/thread_name.h"
#include "scheduler/admission.h"
#include "scheduler/queue_view.h"
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
    published_ = scheduler_->Load();
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
    QueueView one;
    one.Add(request);
    {
      // Judged and counted under one lock, so that two callers cannot both take the last place.
      MutexLock lock(&mutex_);
      MILLRACE_RETURN_IF_ERROR(Admit(request, published_, queue_, options_, runner_->info()));
      unseen_.Add(one);
      queue_.Add(one);
    }
    if (submissions_.Submit(std::move(request))) return absl::OkStatus();
    MutexLock lock(&mutex_);
    unseen_.Subtract(one);
    queue_.Subtract(one);
    return absl::UnavailableError("the server is draining");
  }

  void Cancel(RequestId id) override { submissions_.Control(CancelRequest{id}); }
  void Credit(RequestId id, std::uint64_t tokens_delivered) override {
    submissions_.Control(CreditTokens{id, tokens_delivered});
  }

  void FlushPrefixCache() override { submissions_.Control(millrace::FlushPrefixCache{}); }

  LoadSnapshot snapshot() const override {
    MutexLock lock(&mutex_);
    LoadSnapshot load = published_;
    // What was accepted while a step runs waits too.
    load.waiting = queue_.total().sequences;
    load.waiting_prompt_tokens = queue_.total().prompt_tokens;
    // An idle engine publishes nothing, and one in a long step nothing for long: time goes on.
    const TimePoint now = clock_->Now();
    if (now - load.last_step > kRateWindow) load.tokens_per_second = 0;
    if (oldest_arrival_ != kNoDeadline) load.oldest_wait = now - oldest_arrival_;
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
      } else if (const auto* credit = std::get_if<CreditTokens>(&submission)) {
        scheduler_.Credit(credit->id, credit->tokens_delivered);
      } else {
        const std::int32_t blocks = scheduler_.FlushPrefixCache();
        Log(LogLevel::kInfo, "prefix cache flushed", {{"blocks", blocks}});
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
    const std::int32_t unwanted = scheduler_.Commit(step.plan, *result, now - began, now);
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
    stats.unwanted_tokens = unwanted;
    stats.prefix_cache = step.plan.prefix_cache;
    stats.moe = runner_->info().moe;
    stats.experts = std::move(result->moe);
    rate_.Add(static_cast<std::int64_t>(result->sampled.size()), now);
    Publish(std::move(output));
  }

  // What waits in the scheduler. Classes age, so it is told again after a while though nothing came
  // or went.
  const QueueView& View(TimePoint now) {
    const WaitQueue& waiting = scheduler_->waiting();
    if (waiting.version() != viewed_ || now - viewed_at_ >= kAgeStep) {
      view_ = waiting.View(now);
      viewed_ = waiting.version();
      viewed_at_ = now;
    }
    return view_;
  }

  void FailDevice(const absl::Status& why) {
    failed_ = true;
    Log(LogLevel::kError, "the device is lost", {{"error", std::string(why.message())}});
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
    // Before the lock, which callers wait for.
    QueueView queue = View(now);
    LoadSnapshot load = scheduler_->Load();
    load.tokens_per_second = rate_.PerSecond(now);
    const TimePoint oldest = scheduler_->oldest_arrival();
    {
      MutexLock lock(&mutex_);
      unseen_.Subtract(seen_);
      seen_ = {};
      queue.Add(unseen_);
      queue_ = std::move(queue);
      load.accepting = published_.accepting;
      load.failed = published_.failed;
      published_ = load;
      oldest_arrival_ = oldest;
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
  TimePoint oldest_arrival_ ABSL_GUARDED_BY(mutex_) = kNoDeadline;  // of those that wait
  QueueView unseen_ ABSL_GUARDED_BY(mutex_);  // accepted, and not yet in what was published
  QueueView queue_ ABSL_GUARDED_BY(mutex_);   // what was published, and unseen_

  // Engine thread only.
  RecordedScheduler scheduler_;
  std::deque<InFlight> in_flight_;
  QueueView view_;  // of the scheduler's queue, as of version viewed_
  std::uint64_t viewed_ = 0;
  TimePoint viewed_at_{};
  QueueView seen_;  // received since the last publication
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
