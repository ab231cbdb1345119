// The engine: one thread that owns the Scheduler and drives a ModelRunner. Work enters by Submit,
// Cancel and Credit; results leave by the TokenChannel alone.
//
// Thread-safe: every public method may be called from any thread; none of them waits for a step.
// Life: Create -> Start -> ... -> BeginDrain -> Join. The runner and the channel outlive the
// engine.
#ifndef MILLRACE_SCHEDULER_ENGINE_H_
#define MILLRACE_SCHEDULER_ENGINE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/strong_id.h"
#include "base/token_bytes.h"
#include "runtime/step/model_runner.h"
#include "scheduler/request.h"
#include "scheduler/token_event.h"

namespace millrace {

// What the scheduler is told at start.
struct SchedulerOptions {
  std::int32_t max_num_seqs = 64;
  std::int32_t max_num_batched_tokens = 512;
  std::int32_t max_queue = 256;              // waiting sequences
  std::int64_t max_queue_tokens = 0;         // prompt tokens waiting; 0: 4 x the KV cache
  Duration itl_target{};                     // prefill chunks are sized so that a step stays below
  std::int32_t output_window_tokens = 1024;  // generated and not delivered before a sequence pauses
  Duration max_pause = std::chrono::seconds(30);  // a reader slower than this ends with ABORTED
  // A sequence that was preempted so often gets all blocks that it can ever need with its next
  // admission and is not preempted again. The most that a healthy server was seen to need is 4.
  std::uint32_t max_preemptions = 8;
  std::string record_path;  // of a trace (scheduler/trace.h) that the engine writes; "": none
};

// The state after the last Commit; what admission and health look at. A value.
struct LoadSnapshot {
  std::int32_t running = 0;      // sequences
  std::int32_t waiting = 0;      // sequences
  std::int32_t max_running = 0;  // places for sequences
  std::int64_t waiting_prompt_tokens = 0;
  std::int64_t kv_blocks_total = 0;
  std::int64_t kv_blocks_used = 0;    // referenced by a sequence, or deferred
  std::int64_t kv_blocks_cached = 0;  // held by the prefix cache alone
  double tokens_per_second = 0;       // generated, over the last seconds
  // What was measured; 0: nothing yet.
  double prefill_seconds_per_token = 0;  // as prompts get on beside the streams of now
  double decode_seconds_per_token = 0;   // of a stream
  // The lowest that they ever were: what a call is judged by after a silence (CostModel::Age).
  double lowest_prefill_seconds = 0;
  double lowest_decode_seconds = 0;
  double seconds_per_turn = 0;              // between two admissions while sequences wait
  std::int64_t running_prompt_backlog = 0;  // prompt tokens to be computed for who runs
  Duration oldest_wait{};
  TimePoint last_step{};  // end of the newest step; the epoch if none ran
  bool accepting = true;
  bool failed = false;  // the device is lost
};

class Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Create(
      const SchedulerOptions& options, ModelRunner* runner,
      std::shared_ptr<const TokenBytes> token_bytes, const Clock* clock, TokenChannel* out);
  virtual ~Engine() = default;

  virtual void Start() = 0;

  // Admits `request` against the published snapshot, in microseconds whatever a step takes:
  // RESOURCE_EXHAUSTED when the queue is full or the deadline cannot be met (base/error_details.h
  // says when to come again), INVALID_ARGUMENT when it can never fit the cache, UNAVAILABLE while
  // draining or after a device fault. After OK exactly one terminal event follows.
  virtual absl::Status Submit(Request request) = 0;
  // Never refused. The blocks come back within two steps.
  virtual void Cancel(RequestId id) = 0;
  // `tokens_delivered` in all, not since the last call.
  virtual void Credit(RequestId id, std::uint64_t tokens_delivered) = 0;
  // Requests that are admitted from now on find nothing of what was computed before. Never refused.
  virtual void FlushPrefixCache() = 0;

  virtual LoadSnapshot snapshot() const = 0;

  // Refuses new submissions; what runs goes on until `deadline`, then the rest ends with
  // ShutDownEvent.
  virtual void BeginDrain(TimePoint deadline) = 0;
  // Waits for the engine thread, which ends when a drain is over or the device is lost; then the
  // channel is closed.
  virtual void Join() = 0;
};

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_ENGINE_H_
