#include "scheduler/admission.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/kv/block_table.h"

namespace millrace {
namespace {

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

}  // namespace

absl::Status Admit(const Request& request, const LoadSnapshot& snapshot, const Unseen& unseen,
                   const SchedulerOptions& options, const RunnerInfo& runner) {
  MILLRACE_RETURN_IF_ERROR(CheckFits(request, runner));
  if (snapshot.failed)
    return absl::UnavailableError("the device has failed; the server is going down");
  if (!snapshot.accepting) return absl::UnavailableError("the server is draining");
  const std::int32_t waiting = snapshot.waiting + unseen.requests;
  // Free places count as room only while nobody waits: else it is memory that is short, not places.
  const std::int32_t places =
      snapshot.waiting == 0 ? std::max(0, options.max_num_seqs - snapshot.running) : 0;
  if (waiting >= options.max_queue + places) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the queue is full: ", waiting, " requests wait, --max-queue is ", options.max_queue));
  }
  const std::int64_t tokens = snapshot.waiting_prompt_tokens + unseen.prompt_tokens;
  const auto prompt = static_cast<std::int64_t>(request.prompt_tokens.size());
  if (tokens > 0 && tokens + prompt > options.max_queue_tokens) {
    return absl::ResourceExhaustedError(absl::StrCat("the queue is full: ", tokens,
                                                     " prompt tokens wait, --max-queue-tokens is ",
                                                     options.max_queue_tokens));
  }
  return absl::OkStatus();
}

}  // namespace millrace
