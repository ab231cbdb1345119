// The record of a scheduler's life (serve --record): every call that changed it with what it was
// given, and fingerprints of what it decided. The scheduler is a state machine, so a replay of the
// calls gives the same plans and the same tokens: tools/sim --replay FILE.
//
// One JSON array a line. Times are nanoseconds of the monotonic clock, byte strings hexadecimal.
//   ["millrace-trace", 2, {limits of the scheduler and shape of the runner}]
//   ["token", id, bytes, special]          before the first line with the token as sampled
//   ["submit", now, {request}]             ["cancel", id, now]        ["credit", id, tokens]
//   ["flush"]
//   ["schedule", now, plan]                the fingerprint, or 0 when there was nothing to do
//   ["launched", ticket]
//   ["commit", now, duration, [token of each row; -1: not finite]]
//   ["fail", now, code, message]           ["shutdown", now]
//   ["events", fingerprint]                what came out since the last such line
// It holds prompts and answers: whoever reads it reads them. Written by one thread.
#ifndef MILLRACE_SCHEDULER_TRACE_H_
#define MILLRACE_SCHEDULER_TRACE_H_

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/token_bytes.h"
#include "runtime/step/model_runner.h"
#include "scheduler/engine.h"
#include "scheduler/request.h"
#include "scheduler/step_plan.h"
#include "scheduler/token_event.h"

namespace millrace {

inline constexpr char kTraceName[] = "millrace-trace";
inline constexpr int kTraceVersion = 2;

class TraceWriter {
 public:
  // Begins `path` anew. UNAVAILABLE if it cannot be written.
  static absl::StatusOr<std::unique_ptr<TraceWriter>> Create(
      const std::string& path, const SchedulerOptions& options, const RunnerInfo& runner,
      std::shared_ptr<const TokenBytes> token_bytes);

  void Submit(const Request& request, TimePoint now);
  void Cancel(RequestId id, TimePoint now);
  void Credit(RequestId id, std::uint64_t tokens);
  void Flush();
  void Schedule(TimePoint now, const StepPlan& plan);
  void Launched(StepTicket ticket);
  void Commit(const ForwardResult& result, Duration duration, TimePoint now);
  void Fail(const absl::Status& why, TimePoint now);
  void ShutDown(TimePoint now);
  void Events(const std::vector<TokenEvent>& events);

 private:
  TraceWriter(const std::string& path, std::shared_ptr<const TokenBytes> token_bytes)
      : file_(path, std::ios::trunc), path_(path), token_bytes_(std::move(token_bytes)) {}

  // A line; the first that cannot be written is the last, with a warning.
  void Write(const std::string& line);

  std::ofstream file_;
  const std::string path_;
  const std::shared_ptr<const TokenBytes> token_bytes_;
  std::unordered_set<std::uint32_t> known_tokens_;
};

// As written by TraceWriter: two digits a byte.
std::string ToHex(std::string_view bytes);

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_TRACE_H_
