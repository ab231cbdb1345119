#include "service/response_builder.h"

#include <algorithm>
#include <variant>

namespace millrace {
namespace {

// An id takes at most 5 bytes, so a message stays below 656 KiB.
constexpr std::size_t kMaxPromptIds = std::size_t{128} << 10;

void FillLogprobs(const SampledToken& token, v1::TokenLogprobs* out) {
  out->set_token_id(token.token);
  out->set_logprob(token.logprob);
  out->set_rank(token.rank);
  for (const TokenLogprob& top : token.top) {
    v1::TokenLogprob* entry = out->add_top();
    entry->set_token_id(top.token);
    entry->set_logprob(top.logprob);
  }
}

void FillFinish(const FinishedEvent& finish, v1::FinishInfo* out) {
  out->set_reason(finish.reason == FinishReason::kStop ? v1::FINISH_REASON_STOP
                                                       : v1::FINISH_REASON_LENGTH);
  if (const auto* end = std::get_if<MatchedEndToken>(&finish.match)) {
    out->set_eos_token_id(end->token);
  } else if (const auto* stop = std::get_if<MatchedStopToken>(&finish.match)) {
    out->set_stop_token_id(stop->token);
  } else if (const auto* text = std::get_if<MatchedStopString>(&finish.match)) {
    out->set_stop_string(text->text);
  }
}

void FillUsage(const RequestUsage& usage, v1::Usage* out) {
  out->set_prompt_tokens(usage.prompt_tokens);
  out->set_completion_tokens(usage.completion_tokens);
  out->set_cached_tokens(usage.cached_tokens);
  out->set_preemptions(usage.preemptions);
  out->set_queue_seconds(ToSeconds(usage.queue));
  out->set_prefill_seconds(ToSeconds(usage.prefill));
  out->set_decode_seconds(ToSeconds(usage.decode));
}

}  // namespace

std::vector<v1::GenerateResponse> PromptMessages(const std::string& request_id,
                                                 const std::vector<std::uint32_t>& tokens,
                                                 bool send_ids) {
  std::vector<v1::GenerateResponse> messages;
  std::size_t begin = 0;
  do {
    v1::GenerateResponse& message = messages.emplace_back();
    message.set_request_id(request_id);
    message.mutable_prompt()->set_num_tokens(static_cast<std::uint32_t>(tokens.size()));
    if (!send_ids) break;
    const std::size_t end = std::min(tokens.size(), begin + kMaxPromptIds);
    message.mutable_prompt()->mutable_token_ids()->Add(
        tokens.begin() + static_cast<std::ptrdiff_t>(begin),
        tokens.begin() + static_cast<std::ptrdiff_t>(end));
    begin = end;
  } while (begin < tokens.size());
  return messages;
}

void AppendDelta(const StreamDelta& delta, v1::GenerateResponse* message) {
  message->mutable_text()->append(delta.text);
  for (const SampledToken& token : delta.tokens) {
    message->add_token_ids(token.token);
    if (token.rank > 0) FillLogprobs(token, message->add_logprobs());
  }
  if (delta.finish) {
    FillFinish(*delta.finish, message->mutable_finish());
    if (delta.finish->last) FillUsage(delta.finish->usage, message->mutable_usage());
  }
}

v1::Load LoadMessage(const LoadSnapshot& load, v1::ServerState state) {
  v1::Load out;
  out.set_running(static_cast<std::uint32_t>(load.running));
  out.set_waiting(static_cast<std::uint32_t>(load.waiting));
  out.set_kv_blocks_total(static_cast<std::uint64_t>(load.kv_blocks_total));
  out.set_kv_blocks_used(static_cast<std::uint64_t>(load.kv_blocks_used));
  out.set_kv_blocks_cached(static_cast<std::uint64_t>(load.kv_blocks_cached));
  if (load.kv_blocks_total > 0) {
    out.set_kv_usage(static_cast<double>(load.kv_blocks_used) /
                     static_cast<double>(load.kv_blocks_total));
  }
  out.set_tokens_per_second(load.tokens_per_second);
  out.set_oldest_wait_seconds(ToSeconds(load.oldest_wait));
  out.set_state(state);
  return out;
}

}  // namespace millrace
