#include "runtime/runner/memory_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace millrace {
namespace {

// Left to the rest of the process (streams, tokenizer, libraries) and to the machine.
constexpr std::int64_t kReserveBytes = std::int64_t{256} << 20;
// Below this a chat model is of no use; better to say so than to serve it.
constexpr std::int64_t kMinAutoContext = 2048;

std::string Gigabytes(std::int64_t bytes) {
  return absl::StrFormat("%.2f GB", static_cast<double>(bytes) / 1e9);
}

std::string Budget(const MemoryRequest& r) {
  return absl::StrCat(Gigabytes(r.available_bytes), " of memory are available, weights take ",
                      Gigabytes(r.weight_bytes), ", scratch ", Gigabytes(r.scratch_bytes),
                      ", a token of KV cache ", r.kv_bytes_per_token, " bytes");
}

}  // namespace

absl::StatusOr<MemoryPlan> PlanMemory(const MemoryRequest& r) {
  if (r.context > r.model_context) {
    return absl::InvalidArgumentError(
        absl::StrCat("--ctx ", r.context, ": the model was trained for ", r.model_context));
  }
  const std::int64_t left = r.available_bytes - r.weight_bytes - r.scratch_bytes - kReserveBytes;
  const std::int64_t block_bytes = r.kv_bytes_per_token * r.block_size;
  // What the cache may take, in whole blocks.
  const std::int64_t budget =
      r.kv_cache_bytes > 0
          ? r.kv_cache_bytes
          : static_cast<std::int64_t>(static_cast<double>(std::max<std::int64_t>(left, 0)) *
                                      r.cache_share);
  if (r.kv_cache_bytes > left) {
    return absl::ResourceExhaustedError(
        absl::StrCat("--kv-cache-bytes ", r.kv_cache_bytes, " does not fit: ", Budget(r)));
  }
  const std::int64_t held = budget / block_bytes * r.block_size;  // positions
  const std::int64_t context = r.context > 0 ? r.context : std::min(r.model_context, held);
  if (context > held || context < 1) {
    return absl::ResourceExhaustedError(
        absl::StrCat("--ctx ", r.context > 0 ? absl::StrCat(r.context) : "auto",
                     " does not fit: the KV cache would hold ", std::max<std::int64_t>(held, 0),
                     " positions; ", Budget(r)));
  }
  if (r.context == 0 && context < std::min(kMinAutoContext, r.model_context)) {
    return absl::ResourceExhaustedError(absl::StrCat("--ctx auto: memory holds a context of only ",
                                                     context, ", less than ", kMinAutoContext, "; ",
                                                     Budget(r)));
  }
  const std::int64_t context_blocks = (context + r.block_size - 1) / r.block_size;
  const std::int64_t wanted = context_blocks * r.max_num_seqs;
  const std::int64_t blocks =
      r.kv_cache_bytes > 0 ? budget / block_bytes : std::min(budget / block_bytes, wanted);
  MemoryPlan plan;
  plan.context = static_cast<std::int32_t>(context);
  plan.num_kv_blocks = static_cast<std::int32_t>(std::min<std::int64_t>(blocks, INT32_MAX));
  plan.line = absl::StrCat("context ", context,
                           r.context > 0                ? ""
                           : context == r.model_context ? " (the model's)"
                                                        : " (what memory holds)",
                           ", KV cache of ", plan.num_kv_blocks, " blocks for ",
                           std::int64_t{plan.num_kv_blocks} * r.block_size, " positions (",
                           Gigabytes(plan.num_kv_blocks * block_bytes), "), weights ",
                           Gigabytes(r.weight_bytes), ", scratch ", Gigabytes(r.scratch_bytes),
                           ", available ", Gigabytes(r.available_bytes));
  return plan;
}

}  // namespace millrace
