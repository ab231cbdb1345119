#include "service/request_validator.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace millrace {
namespace {

// What one request may cost the engine at each token: far more than any client sends.
constexpr int kMaxStopStrings = 64;
constexpr std::size_t kMaxStopStringBytes = 1024;
constexpr int kMaxStopTokenIds = 1024;
// Kept with the first block of a prefix.
constexpr std::size_t kMaxSaltBytes = 256;
// Each has blocks and text of its own.
constexpr std::uint32_t kMaxSequences = 128;

absl::Status Unimplemented(const std::string& field) {
  return absl::UnimplementedError(field + ": not built yet in this version");
}

absl::Status RefuseLaterFeatures(const v1::GenerateRequest& message) {
  const v1::SamplingParams& sampling = message.sampling();
  switch (sampling.constraint_case()) {
    case v1::SamplingParams::kJsonSchema:
      return Unimplemented("sampling.json_schema");
    case v1::SamplingParams::kRegex:
      return Unimplemented("sampling.regex");
    case v1::SamplingParams::kGrammar:
      return Unimplemented("sampling.grammar");
    case v1::SamplingParams::kChoice:
      return Unimplemented("sampling.choice");
    case v1::SamplingParams::CONSTRAINT_NOT_SET:
      break;
  }
  if (message.output().has_prompt_logprobs()) return Unimplemented("output.prompt_logprobs");
  return absl::OkStatus();
}

// How many answers.
absl::StatusOr<std::uint32_t> ReadNumSequences(const v1::SamplingParams& in) {
  if (!in.has_num_sequences()) return 1;
  if (in.num_sequences() == 0 || in.num_sequences() > kMaxSequences) {
    return absl::InvalidArgumentError(absl::StrCat("sampling.num_sequences is ", in.num_sequences(),
                                                   "; want 1 to ", kMaxSequences));
  }
  return in.num_sequences();
}

absl::StatusOr<std::vector<std::uint32_t>> PromptTokens(const v1::GenerateRequest& message,
                                                        const ServedModel& model) {
  switch (message.prompt_case()) {
    case v1::GenerateRequest::kText: {
      // Absent: the file's own flags decide, which are off where the file has none.
      const bool add_special = !message.has_add_special() || message.add_special();
      const bool parse_special = !message.has_parse_special() || message.parse_special();
      return model.tokenizer->Encode(message.text(),
                                     {.parse_special = parse_special, .add_special = add_special});
    }
    case v1::GenerateRequest::kTokenIds: {
      std::vector<std::uint32_t> ids(message.token_ids().ids().begin(),
                                     message.token_ids().ids().end());
      MILLRACE_RETURN_IF_ERROR(CheckTokenIds("token_ids", ids, model.info.vocab_size()));
      return ids;
    }
    case v1::GenerateRequest::kChat: {
      MILLRACE_ASSIGN_OR_RETURN(TokenizedChat chat,
                                TokenizeChat(message.chat(), model, message.add_special()));
      return std::move(chat.tokens);
    }
    case v1::GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("prompt: none is set; want text, token_ids or chat");
}

std::uint64_t DrawSeed() {
  std::random_device device;
  return std::uint64_t{device()} << 32U | device();
}

absl::StatusOr<SamplingParams> ReadSampling(const v1::GenerateRequest& message,
                                            std::uint32_t vocab_size) {
  const v1::SamplingParams& in = message.sampling();
  SamplingParams out;
  SamplerParams& sampler = out.sampler;
  if (in.has_temperature()) sampler.temperature = in.temperature();
  if (in.has_top_k()) sampler.top_k = in.top_k();
  if (in.has_top_p()) sampler.top_p = in.top_p();
  if (in.has_min_p()) sampler.min_p = in.min_p();
  if (in.has_repetition_penalty()) sampler.repetition_penalty = in.repetition_penalty();
  if (in.has_presence_penalty()) sampler.presence_penalty = in.presence_penalty();
  if (in.has_frequency_penalty()) sampler.frequency_penalty = in.frequency_penalty();
  sampler.seed = in.has_seed() ? in.seed() : DrawSeed();
  out.logit_bias.assign(in.logit_bias().begin(), in.logit_bias().end());
  std::sort(out.logit_bias.begin(), out.logit_bias.end());
  out.allowed_token_ids.assign(in.allowed_token_ids().begin(), in.allowed_token_ids().end());
  std::sort(out.allowed_token_ids.begin(), out.allowed_token_ids.end());
  out.allowed_token_ids.erase(
      std::unique(out.allowed_token_ids.begin(), out.allowed_token_ids.end()),
      out.allowed_token_ids.end());
  if (message.output().has_logprobs()) {
    out.num_logprobs = static_cast<std::int32_t>(std::min<std::uint32_t>(
        message.output().logprobs(), kMaxLogprobs + 1));  // one too many is refused below
    if (out.num_logprobs > kMaxLogprobs) {
      return absl::InvalidArgumentError(absl::StrCat(
          "output.logprobs is ", message.output().logprobs(), "; want 0 to ", kMaxLogprobs));
    }
  }
  MILLRACE_RETURN_IF_ERROR(ValidateSamplingParams(out, vocab_size));
  return out;
}

absl::StatusOr<StopMatcher> ReadStopStrings(const v1::StoppingCriteria& in) {
  if (in.stop_strings_size() > kMaxStopStrings) {
    return absl::InvalidArgumentError(absl::StrCat(
        "stopping.stop_strings has ", in.stop_strings_size(), "; want at most ", kMaxStopStrings));
  }
  for (const std::string& text : in.stop_strings()) {
    if (text.empty() || text.size() > kMaxStopStringBytes) {
      return absl::InvalidArgumentError(absl::StrCat("stopping.stop_strings: one has ", text.size(),
                                                     " bytes; want 1 to ", kMaxStopStringBytes));
    }
  }
  return StopMatcher({in.stop_strings().begin(), in.stop_strings().end()},
                     in.include_stop_string());
}

// How many tokens to generate after a prompt of `prompt` tokens.
absl::StatusOr<std::uint32_t> ReadMaxNewTokens(const v1::StoppingCriteria& in, std::uint64_t prompt,
                                               std::uint32_t context) {
  if (prompt > context || (prompt == context && !in.has_max_new_tokens())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "prompt has ", prompt, " tokens; the context holds ", context, " with what is generated"));
  }
  const auto room = static_cast<std::uint32_t>(context - prompt);
  if (!in.has_max_new_tokens()) return room;
  if (in.max_new_tokens() > room) {
    return absl::InvalidArgumentError(
        absl::StrCat("stopping.max_new_tokens is ", in.max_new_tokens(), "; a prompt of ", prompt,
                     " leaves ", room, " of the context of ", context));
  }
  return in.max_new_tokens();
}

absl::StatusOr<StoppingParams> ReadStopping(const v1::StoppingCriteria& in, std::uint64_t prompt,
                                            const ServedModel& model) {
  StoppingParams out;
  MILLRACE_ASSIGN_OR_RETURN(out.max_new_tokens,
                            ReadMaxNewTokens(in, prompt, model.info.context_length()));
  if (in.min_new_tokens() > out.max_new_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("stopping.min_new_tokens is ",
                                                   in.min_new_tokens(), "; at most ",
                                                   out.max_new_tokens, " tokens are generated"));
  }
  out.min_new_tokens = in.min_new_tokens();
  if (!in.ignore_eos()) {
    const auto ends = model.tokenizer->end_tokens();
    out.end_token_ids.assign(ends.begin(), ends.end());
  }
  if (in.stop_token_ids_size() > kMaxStopTokenIds) {
    return absl::InvalidArgumentError(absl::StrCat("stopping.stop_token_ids has ",
                                                   in.stop_token_ids_size(), "; want at most ",
                                                   kMaxStopTokenIds));
  }
  out.stop_token_ids.assign(in.stop_token_ids().begin(), in.stop_token_ids().end());
  MILLRACE_RETURN_IF_ERROR(
      CheckTokenIds("stopping.stop_token_ids", out.stop_token_ids, model.info.vocab_size()));
  MILLRACE_ASSIGN_OR_RETURN(out.stop_matcher, ReadStopStrings(in));
  return out;
}

ChatMessage ToChatMessage(const v1::ChatMessage& in) {
  ChatMessage out;
  out.role = in.role();
  if (in.has_content()) out.content = in.content();
  out.name = in.name();
  for (const v1::ToolCall& call : in.tool_calls()) {
    out.tool_calls.push_back(
        {.id = call.id(), .name = call.name(), .arguments_json = call.arguments_json()});
  }
  out.tool_call_id = in.tool_call_id();
  out.reasoning_content = in.reasoning_content();
  return out;
}

}  // namespace

absl::Status CheckModelName(const std::string& name, const ServedModel& model) {
  if (name.empty() || name == model.info.name()) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat(
      "model '", name.substr(0, 200), "' is not served here; this is '", model.info.name(), "'"));
}

absl::Status CheckTokenIds(const std::string& field, const std::vector<std::uint32_t>& ids,
                           std::uint32_t vocab_size) {
  const auto bad = std::find_if(ids.begin(), ids.end(),
                                [vocab_size](std::uint32_t id) { return id >= vocab_size; });
  if (bad == ids.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", *bad, " is no token; want ids below ", vocab_size));
}

absl::StatusOr<TokenizedChat> TokenizeChat(const v1::Chat& chat, const ServedModel& model,
                                           bool add_special) {
  if (model.chat_template == nullptr) return model.chat_status;
  if (chat.messages().empty()) {
    return absl::InvalidArgumentError("prompt: chat.messages is empty; want at least one");
  }
  ChatInput input;
  for (const v1::ChatMessage& message : chat.messages()) {
    input.messages.push_back(ToChatMessage(message));
  }
  input.tools_json = chat.tools_json();
  input.template_args_json = chat.template_args_json();
  input.add_generation_prompt = !chat.has_add_generation_prompt() || chat.add_generation_prompt();
  input.continue_final_message = chat.continue_final_message();
  absl::StatusOr<RenderedChat> rendered = model.chat_template->Render(input);
  if (!rendered.ok()) {
    // A limit that is passed is the caller's too: to come again later would not help.
    return absl::InvalidArgumentError(
        absl::StrCat("chat: ", std::string(rendered.status().message())));
  }
  std::vector<TextRun> runs;
  for (const RenderedRun& run : rendered->runs) runs.push_back({run.text, run.trusted});
  return TokenizedChat{rendered->text(), model.tokenizer->EncodeRuns(runs, add_special)};
}

absl::StatusOr<Request> ValidateRequest(const v1::GenerateRequest& message,
                                        const ServedModel& model, TimePoint arrival,
                                        TimePoint deadline) {
  MILLRACE_RETURN_IF_ERROR(CheckModelName(message.model(), model));
  MILLRACE_RETURN_IF_ERROR(RefuseLaterFeatures(message));
  Request request;
  MILLRACE_ASSIGN_OR_RETURN(request.sampling, ReadSampling(message, model.info.vocab_size()));
  MILLRACE_ASSIGN_OR_RETURN(request.num_sequences, ReadNumSequences(message.sampling()));
  if (message.priority() < -kMaxPriority || message.priority() > kMaxPriority) {
    return absl::InvalidArgumentError(absl::StrCat("priority is ", message.priority(), "; want ",
                                                   -kMaxPriority, " to ", kMaxPriority));
  }
  request.priority = message.priority();
  MILLRACE_ASSIGN_OR_RETURN(request.prompt_tokens, PromptTokens(message, model));
  if (request.prompt_tokens.empty()) {
    return absl::InvalidArgumentError("prompt: no tokens; want at least one");
  }
  MILLRACE_ASSIGN_OR_RETURN(request.stopping,
                            ReadStopping(message.stopping(), request.prompt_tokens.size(), model));
  request.skip_special_tokens =
      !message.output().has_skip_special_tokens() || message.output().skip_special_tokens();
  if (message.cache().salt().size() > kMaxSaltBytes) {
    return absl::InvalidArgumentError(absl::StrCat("cache.salt has ", message.cache().salt().size(),
                                                   " bytes; want at most ", kMaxSaltBytes));
  }
  request.cache_salt = message.cache().salt();
  request.bypass_prefix_cache = message.cache().bypass_prefix_cache();
  request.arrival = arrival;
  request.deadline = deadline;
  return request;
}

}  // namespace millrace
