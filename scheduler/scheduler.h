// Which sequences compute what in the next step: continuous batching under a token budget, as a
// pure state machine. No clock, thread or log inside, ordered containers only: the same calls give
// the same plans, so a simulator can drive the very code that serves.
//
// One pass: expire -> keep running ones going (may preempt the youngest) -> admit waiting ones in
// their order (scheduler/wait_queue.h) -> plan. A plan takes effect when Schedule returns it; its
// result comes back by Commit, in the order of launch.
//
// Not thread-safe: the engine thread owns it.
#ifndef MILLRACE_SCHEDULER_SCHEDULER_H_
#define MILLRACE_SCHEDULER_SCHEDULER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/strong_id.h"
#include "base/token_bytes.h"
#include "runtime/step/model_runner.h"
#include "scheduler/cost_model.h"
#include "scheduler/engine.h"
#include "scheduler/fair_share.h"
#include "scheduler/kv_manager.h"
#include "scheduler/request.h"
#include "scheduler/sequence.h"
#include "scheduler/step_plan.h"
#include "scheduler/token_event.h"
#include "scheduler/wait_queue.h"

namespace millrace {

class Scheduler {
 public:
  Scheduler(const SchedulerOptions& options, const RunnerInfo& runner,
            std::shared_ptr<const TokenBytes> token_bytes);
  ~Scheduler();

  // A request that admission let in: it waits. Where the queue is over its limits now, a request of
  // the tenant with the most of them is turned away.
  void Submit(Request request, TimePoint now);
  // Ends a request at once; unknown ids are ignored.
  void Cancel(RequestId id, TimePoint now);
  void Credit(RequestId id, std::uint64_t tokens_delivered);
  // No prefix that was computed until now is found again. Returns how many blocks of them there
  // were.
  std::int32_t FlushPrefixCache() { return kv_.Flush(); }

  // Decides one step; empty when nothing can run now. REQUIRES: fewer steps in flight than the
  // runner allows.
  StepPlan Schedule(TimePoint now);
  // The ticket that the runner gave for the plan.
  void Launched(const StepPlan& plan, StepTicket ticket);
  // Takes the result of the oldest step in flight. Returns how many of its tokens nobody wants: of
  // sequences that have ended since it was launched.
  std::int32_t Commit(const StepPlan& plan, const ForwardResult& result, Duration duration,
                      TimePoint now);

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

  bool idle() const { return groups_.empty(); }
  // Sequences.
  std::int32_t num_running() const { return static_cast<std::int32_t>(running_.size()); }
  std::int32_t num_waiting() const { return waiting_.size(); }
  std::int64_t waiting_prompt_tokens() const { return waiting_.prompt_tokens(); }
  // Prompt tokens to be computed for who runs.
  std::int64_t running_prompt_backlog() const;
  TimePoint oldest_arrival() const { return waiting_.oldest_arrival(); }
  const KvManager& kv() const { return kv_; }
  const CostModel& cost() const { return cost_; }
  const FairShare& shares() const { return shares_; }
  const WaitQueue& waiting() const { return waiting_; }
  // Seconds for a prompt token as prompts get on beside the streams of now. 0: not known.
  double prefill_pace() const;
  // All of this that admission, health and balancers look at; what only the engine knows is left
  // as it is in a new one.
  LoadSnapshot Load() const;

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
    std::int32_t admitted = 0;
  };

  // How fast those that wait get their turn.
  void ObserveTurns(const Pass& pass);
  void Begin(StepPlan* plan);
  void Expire(TimePoint now);
  void PauseOrResume(TimePoint now);
  std::int32_t CountDecodes() const;
  std::int32_t CountUnpaused() const;
  // `known` positions need not be computed.
  bool Doomed(const Sequence& sequence, std::int32_t known, TimePoint now) const;
  bool DoomedBeforeItBegins(const Sequence& sequence, TimePoint now) const;
  void EndDoomed(TimePoint now);
  void FailDoomed(RequestGroup* group, TimePoint now);
  void ScheduleRunning(Pass* pass);
  void ScheduleWaiting(Pass* pass);
  // Schedules what `sequence` may compute now; false if it needs a block that nobody can give.
  bool ScheduleSequence(Sequence* sequence, Pass* pass);
  bool CanAdvance(const Sequence& sequence) const;
  bool ReserveOrPreempt(Sequence* sequence, std::int64_t positions, Pass* pass);
  bool ReserveForAdmission(Sequence* sequence, Pass* pass);
  void Admit(Sequence* sequence);
  void ShedSurplus(TimePoint now);
  // Whether blocks of others may be its, and its blocks others': at least its siblings'.
  static bool UsesCache(const Request& request) {
    return !request.bypass_prefix_cache || request.num_sequences > 1;
  }
  // Its blocks, with those of a prefix that the cache knows; all or nothing.
  bool ReserveAllKnown(Sequence* sequence);
  // What a step computed of a sequence may be found by others.
  void Remember(Sequence* sequence, const PlannedSequence& planned);
  void Preempt(Sequence* victim, Pass* pass);
  void AddToBatch(Sequence* sequence, std::int32_t num_tokens, Pass* pass);

  // One more token of a sequence; may end it.
  void AppendToken(Sequence* sequence, const SampledToken& token, TimePoint now);
  void FinishPrefillOnly(Sequence* sequence, TimePoint now);

  void Emit(
      const RequestGroup& group, TimePoint now,
      std::variant<TokensEvent, FinishedEvent, CancelledEvent, FailedEvent, ShutDownEvent> what);
  void Finish(Sequence* sequence, FinishReason reason, StopMatch match, TimePoint now);
  // Ends all sequences of a request.
  void Fail(RequestGroup* group, absl::Status status, TimePoint now);
  // Removes a request whose terminal event is out.
  void Remove(RequestGroup* group);
  // Takes a sequence that has ended out of its queue, and its blocks back.
  void Detach(Sequence* sequence);
  RequestGroup* Find(RequestId id);
  Sequence* Find(RequestId id, std::uint32_t index);

  const SchedulerOptions options_;
  const RunnerInfo runner_;
  const std::shared_ptr<const TokenBytes> token_bytes_;
  const std::int32_t places_;  // sequences that run, but for those whose reader is behind

  KvManager kv_;
  CostModel cost_;
  FairShare shares_;
  std::map<RequestId, std::unique_ptr<RequestGroup>> groups_;  // after kv_: their blocks go first
  WaitQueue waiting_{&shares_};
  std::vector<Sequence*> running_;  // by admission, the youngest last; paused ones too
  std::uint64_t admissions_ = 0;
  std::size_t last_table_size_ = 0;
  TimePoint
      turns_since_{};  // since then sequences wait and nobody was admitted; the epoch: none wait
  TimePoint last_step_{};                    // the end of the newest; the epoch: none
  std::int32_t unreported_preemptions_ = 0;  // since the last plan that was not empty
  std::vector<TokenEvent> events_;
};

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_SCHEDULER_H_
