#include "scheduler/admission.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/error_details.h"
#include "base/status.h"
#include "runtime/kv/block_table.h"
#include "scheduler/cost_model.h"

namespace millrace {
namespace {

std::int64_t ToMilliseconds(Duration d) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
}

absl::Status CheckFits(const Request& request, const RunnerInfo& runner) {
  const std::int64_t prompt = static_cast<std::int64_t>(request.prompt_tokens.size());
  const std::int64_t total = prompt + request.stopping.max_new_tokens;
  if (prompt == 0) return absl::InvalidArgumentError("prompt: no tokens; want at least one");
  if (total > runner.max_context) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt of ", prompt, " tokens and max_new_tokens ",
                     request.stopping.max_new_tokens, " pass the context of ", runner.max_context));
  }
  if (BlocksFor(total, runner.block_size) > runner.num_kv_blocks) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt and max_new_tokens take ", total, " positions; the KV cache holds ",
                     std::int64_t{runner.num_kv_blocks} * runner.block_size));
  }
  return absl::OkStatus();
}

absl::Status Shed(const std::string& message, std::string_view reason, Duration retry_after) {
  // While nothing was measured.
  constexpr Duration kSomeTime = std::chrono::seconds(1);
  return WithRetry(absl::ResourceExhaustedError(message), reason,
                   retry_after > Duration::zero() ? retry_after : kSomeTime);
}

std::int32_t FreePlaces(const LoadSnapshot& snapshot, const SchedulerOptions& options) {
  // Free places count as room only while nobody waits: else it is memory that is short, not places.
  return snapshot.waiting == 0 ? std::max(0, options.max_num_seqs - snapshot.running) : 0;
}

// How long until one of so many that wait for places has had its turn.
Duration Turns(std::int32_t waiting, const LoadSnapshot& snapshot) {
  return waiting <= 0 ? Duration::zero() : FromSeconds(waiting * snapshot.seconds_per_turn);
}

absl::Status CheckQueue(const Request& request, const LoadSnapshot& snapshot,
                        const QueueView& queue, const SchedulerOptions& options) {
  const std::int32_t tenants = queue.NumTenantsWith(request.tenant);
  const QueueView::Waiting own = queue.Of(request.tenant);
  const auto more = static_cast<std::int32_t>(request.num_sequences);
  const std::int32_t waiting = queue.total().sequences;
  const std::int32_t room = options.max_queue + FreePlaces(snapshot, options);
  // A tenant with less than its share of a full queue takes the place of one with more. A request
  // that is larger than the queue has it for itself.
  const bool has_share = tenants == 1 || own.sequences + more > room / tenants;
  const bool too_large = waiting == 0 && room > 0;
  if (waiting + more > room && has_share && !too_large) {
    return Shed(absl::StrCat("the queue is full: ", waiting, " sequences wait, --max-queue is ",
                             options.max_queue),
                kQueueFull, Turns(1, snapshot));
  }
  const std::int64_t tokens = queue.total().prompt_tokens;
  const auto prompt = static_cast<std::int64_t>(request.prompt_tokens.size());
  const bool has_tokens =
      tenants == 1 || own.prompt_tokens + prompt > options.max_queue_tokens / tenants;
  if (tokens > 0 && tokens + prompt > options.max_queue_tokens && has_tokens) {
    return Shed(
        absl::StrCat("the queue is full: ", tokens, " prompt tokens wait, --max-queue-tokens is ",
                     options.max_queue_tokens),
        kQueueFull, Turns(1, snapshot));
  }
  return absl::OkStatus();
}

// A price that was too high must not refuse what would correct it.
LoadSnapshot WithPricesAt(TimePoint now, LoadSnapshot snapshot, const QueueView& queue) {
  const bool idle = snapshot.running == 0 && queue.total().sequences == 0;
  const Duration silence = now - snapshot.last_step;
  if (!idle || silence < CostModel::kKeeps) return snapshot;
  const double fade = CostModel::Fade(silence);
  snapshot.prefill_seconds_per_token = fade * snapshot.lowest_prefill_seconds;
  snapshot.decode_seconds_per_token = fade * snapshot.lowest_decode_seconds;
  return snapshot;
}

absl::Status CheckDeadline(const Request& request, const LoadSnapshot& snapshot,
                           const QueueView& queue, const SchedulerOptions& options) {
  if (request.deadline == kNoDeadline) return absl::OkStatus();
  const Duration first = PredictFirstToken(request, snapshot, queue, options);
  const Duration rest =
      FromSeconds(request.stopping.min_new_tokens * snapshot.decode_seconds_per_token);
  const Duration left = request.deadline - request.arrival;
  if (first + rest <= left) return absl::OkStatus();
  return Shed(absl::StrCat("the deadline is in ", ToMilliseconds(left),
                           " ms; at the pace of now the first token takes ", ToMilliseconds(first),
                           " ms and min_new_tokens ", ToMilliseconds(rest), " ms"),
              kDeadlineUnreachable, first + rest - left);
}

}  // namespace

Duration PredictFirstToken(const Request& request, const LoadSnapshot& snapshot,
                           const QueueView& queue, const SchedulerOptions& options) {
  const QueueView::Waiting before = queue.Before(request.tenant, request.priority);
  const std::int64_t prompts = snapshot.running_prompt_backlog + before.prompt_tokens +
                               static_cast<std::int64_t>(request.prompt_tokens.size());
  const auto own = static_cast<double>(request.prompt_tokens.size());
  const Duration prefill =
      FromSeconds(static_cast<double>(prompts) * snapshot.prefill_seconds_per_token);
  const Duration place = Turns(before.sequences + 1 - FreePlaces(snapshot, options), snapshot);
  return std::max(prefill, place + FromSeconds(own * snapshot.prefill_seconds_per_token));
}

absl::Status Admit(const Request& request, const LoadSnapshot& snapshot, const QueueView& queue,
                   const SchedulerOptions& options, const RunnerInfo& runner) {
  MILLRACE_RETURN_IF_ERROR(CheckFits(request, runner));
  if (snapshot.failed)
    return absl::UnavailableError("the device has failed; the server is going down");
  if (!snapshot.accepting) return absl::UnavailableError("the server is draining");
  MILLRACE_RETURN_IF_ERROR(CheckQueue(request, snapshot, queue, options));
  return CheckDeadline(request, WithPricesAt(request.arrival, snapshot, queue), queue, options);
}

}  // namespace millrace
