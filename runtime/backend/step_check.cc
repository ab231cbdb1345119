#include "runtime/backend/step_check.h"

#include "absl/strings/str_cat.h"

namespace millrace {

absl::Status CheckStep(const StepInput& input, const BackendLimits& limits) {
  const auto tokens = static_cast<std::int64_t>(input.token_ids.size());
  const auto sequences = static_cast<std::int64_t>(input.context_len.size());
  const auto rows = static_cast<std::int64_t>(input.logit_rows.size());
  if (tokens < 1 || tokens > limits.max_tokens || sequences > limits.max_seqs ||
      rows > limits.max_logit_rows) {
    return absl::InternalError(absl::StrCat("a step of ", tokens, " tokens, ", sequences,
                                            " sequences and ", rows, " logit rows; prepared for ",
                                            limits.max_tokens, ", ", limits.max_seqs, " and ",
                                            limits.max_logit_rows));
  }
  for (std::int64_t s = 0; s < sequences; ++s) {
    const auto i = static_cast<std::size_t>(s);
    const std::int64_t blocks = input.block_table_start[i + 1] - input.block_table_start[i];
    if (input.context_len[i] < 1 || input.context_len[i] > limits.max_context ||
        input.context_len[i] > blocks * limits.kv.block_size) {
      return absl::InternalError(absl::StrCat("sequence ", s, ": context ", input.context_len[i],
                                              " in ", blocks, " blocks of ", limits.kv.block_size));
    }
  }
  for (const std::int32_t block : input.block_table) {
    if (block < 0 || block >= limits.num_kv_blocks) {
      return absl::InternalError(absl::StrCat("KV block ", block, " of ", limits.num_kv_blocks));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTokens(std::span<const std::int32_t> token_ids, std::int32_t vocab) {
  for (const std::int32_t id : token_ids) {
    if (id < 0 || id >= vocab) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", id, " outside of the vocabulary of ", vocab));
    }
  }
  return absl::OkStatus();
}

}  // namespace millrace
