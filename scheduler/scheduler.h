// Which sequences compute what in the next step: continuous batching under a token budget, as a
// pure state machine. No clock, thread or log inside, ordered containers only: the same calls give
// the same plans, so a simulator can drive the very code that serves.
//
// One pass: expire -> keep running ones going (may preempt the youngest) -> admit waiting ones in
// order -> plan. A plan takes effect when Schedule returns it; its result comes back by Commit, in
// the order of launch.
//
// Not thread-safe: the engine thread owns it.
#ifndef MILLRACE_SCHEDULER_SCHEDULER_H_
#define MILLRACE_SCHEDULER_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/strong_id.h"
#include "base/token_bytes.h"
#include "runtime/step/model_runner.h"
#include "scheduler/cost_model.h"
#include "scheduler/engine.h"
#include "scheduler/kv_manager.h"
#include "scheduler/request.h"
#include "scheduler/sequence.h"
#include "scheduler/step_plan.h"
#include "scheduler/token_event.h"

namespace millrace {

class Scheduler {
 public:
  Scheduler(const SchedulerOptions& options, const RunnerInfo& runner,
            std::shared_ptr<const TokenBytes> token_bytes);
  ~Scheduler();

  // A request that admission let in: to the end of the queue.
  void Submit(Request request);
  // Ends a request at once; unknown ids are ignored.
  void Cancel(RequestId id, TimePoint now);
  void Credit(RequestId id, std::uint64_t tokens_delivered);

  // Decides one step; empty when nothing can run now. REQUIRES: fewer steps in flight than the
  // runner allows.
  StepPlan Schedule(TimePoint now);
  // The ticket that the runner gave for the plan.
  void Launched(const StepPlan& plan, StepTicket ticket);
  // Takes the result of the oldest step in flight.
  void Commit(const StepPlan& plan, const ForwardResult& result, Duration duration, TimePoint now);

  // The device is lost: ends everything, UNAVAILABLE where no token was sent yet, INTERNAL
  // elsewhere.
  void FailAll(const absl::Status& why, TimePoint now);
  // Ends everything that is left at the end of a drain.
  void ShutDownAll(TimePoint now);

  // Events since the last call, in order.
  std::vector<TokenEvent> TakeEvents();
  // When time alone changes something: the next deadline, or the end of a reader's patience;
  // kNoDeadline if never.
  TimePoint NextTimeout() const;

  bool idle() const { return sequences_.empty(); }
  std::int32_t num_running() const { return static_cast<std::int32_t>(running_.size()); }
  std::int32_t num_waiting() const { return static_cast<std::int32_t>(waiting_.size()); }
  std::int64_t waiting_prompt_tokens() const { return waiting_prompt_tokens_; }
  TimePoint oldest_arrival() const;  // of the waiting ones; kNoDeadline if none wait
  const KvManager& kv() const { return kv_; }

  // Aborts on a broken invariant: for debug builds and tests.
  void CheckInvariants() const;

 private:
  // Room of the step that is being planned.
  struct Pass {
    StepPlan plan;
    TimePoint now;
    std::int32_t tokens_left = 0;
    std::int32_t prefill_left = 0;
    bool preempted = false;
  };

  void Expire(TimePoint now);
  void PauseOrResume(TimePoint now);
  std::int32_t CountDecodes() const;
  std::int32_t CountUnpaused() const;
  void ScheduleRunning(Pass* pass);
  void ScheduleWaiting(Pass* pass);
  // Schedules what `sequence` may compute now; false if it needs a block that nobody can give.
  bool ScheduleSequence(Sequence* sequence, Pass* pass);
  bool CanAdvance(const Sequence& sequence) const;
  bool ReserveOrPreempt(Sequence* sequence, std::int64_t positions, Pass* pass);
  bool ReserveForAdmission(Sequence* sequence, Pass* pass);
  // Its blocks, with those of a prefix that the cache knows; all or nothing.
  bool ReserveAllKnown(Sequence* sequence);
  // What a step computed of a sequence may be found by others.
  void Remember(Sequence* sequence, const PlannedSequence& planned);
  void Preempt(Sequence* victim, Pass* pass);
  void AddToBatch(Sequence* sequence, std::int32_t num_tokens, Pass* pass);
  RowSampling MakeSampling(const Sequence& sequence) const;

  // One more token of a sequence; may end it.
  void AppendToken(Sequence* sequence, const SampledToken& token, TimePoint now);
  std::string TakeText(Sequence* sequence, std::uint32_t token, StopMatch* match);
  void FinishPrefillOnly(Sequence* sequence, TimePoint now);

  void Emit(
      const Sequence& sequence, TimePoint now,
      std::variant<TokensEvent, FinishedEvent, CancelledEvent, FailedEvent, ShutDownEvent> what);
  RequestUsage UsageOf(const Sequence& sequence, TimePoint now) const;
  void Finish(Sequence* sequence, FinishReason reason, StopMatch match, TimePoint now);
  void Fail(Sequence* sequence, absl::Status status, TimePoint now);
  // Removes a sequence whose terminal event is out.
  void Remove(Sequence* sequence);
  Sequence* Find(RequestId id);

  const SchedulerOptions options_;
  const RunnerInfo runner_;
  const std::shared_ptr<const TokenBytes> token_bytes_;

  KvManager kv_;
  CostModel cost_;
  std::map<RequestId, std::unique_ptr<Sequence>> sequences_;  // after kv_: their blocks go first
  std::deque<Sequence*> waiting_;   // preempted ones at the front, then by arrival
  std::vector<Sequence*> running_;  // by admission, the youngest last; paused ones too
  std::int64_t waiting_prompt_tokens_ = 0;
  std::uint64_t admissions_ = 0;
  std::int32_t unreported_preemptions_ = 0;  // since the last plan that was not empty
  std::vector<TokenEvent> events_;
};

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_SCHEDULER_H_
