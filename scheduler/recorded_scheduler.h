// The scheduler as the engine drives it: every call that changes it is written to a trace first, if
// there is one. Owned and driven by the engine thread.
#ifndef MILLRACE_SCHEDULER_RECORDED_SCHEDULER_H_
#define MILLRACE_SCHEDULER_RECORDED_SCHEDULER_H_

#include <memory>
#include <utility>
#include <vector>

#include "scheduler/scheduler.h"
#include "scheduler/trace.h"

namespace millrace {

class RecordedScheduler {
 public:
  // `trace` may be null.
  RecordedScheduler(const SchedulerOptions& options, const RunnerInfo& runner,
                    std::shared_ptr<const TokenBytes> token_bytes,
                    std::unique_ptr<TraceWriter> trace)
      : scheduler_(options, runner, std::move(token_bytes)), trace_(std::move(trace)) {}

  // What it knows.
  const Scheduler* operator->() const { return &scheduler_; }

  // As of Scheduler.
  void Submit(Request request, TimePoint now) {
    if (trace_) trace_->Submit(request, now);
    scheduler_.Submit(std::move(request), now);
  }
  void Cancel(RequestId id, TimePoint now) {
    if (trace_) trace_->Cancel(id, now);
    scheduler_.Cancel(id, now);
  }
  void Credit(RequestId id, std::uint64_t tokens_delivered) {
    if (trace_) trace_->Credit(id, tokens_delivered);
    scheduler_.Credit(id, tokens_delivered);
  }
  std::int32_t FlushPrefixCache() {
    if (trace_) trace_->Flush();
    return scheduler_.FlushPrefixCache();
  }
  StepPlan Schedule(TimePoint now) {
    StepPlan plan = scheduler_.Schedule(now);
    if (trace_) trace_->Schedule(now, plan);
    return plan;
  }
  void Launched(const StepPlan& plan, StepTicket ticket) {
    if (trace_) trace_->Launched(ticket);
    scheduler_.Launched(plan, ticket);
  }
  std::int32_t Commit(const StepPlan& plan, const ForwardResult& result, Duration duration,
                      TimePoint now) {
    if (trace_) trace_->Commit(result, duration, now);
    return scheduler_.Commit(plan, result, duration, now);
  }
  void FailAll(const absl::Status& why, TimePoint now) {
    if (trace_) trace_->Fail(why, now);
    scheduler_.FailAll(why, now);
  }
  void ShutDownAll(TimePoint now) {
    if (trace_) trace_->ShutDown(now);
    scheduler_.ShutDownAll(now);
  }
  std::vector<TokenEvent> TakeEvents() {
    std::vector<TokenEvent> events = scheduler_.TakeEvents();
    if (trace_) trace_->Events(events);
    return events;
  }

 private:
  Scheduler scheduler_;
  const std::unique_ptr<TraceWriter> trace_;
};

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_RECORDED_SCHEDULER_H_
