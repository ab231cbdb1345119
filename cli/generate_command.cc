// millrace generate: one request in this process, through the same engine as the server.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "cli/cli_util.h"
#include "cli/commands.h"
#include "runtime/backend/factory.h"
#include "runtime/runner/model_loader.h"
#include "runtime/tokenizer/chat_template.h"
#include "runtime/tokenizer/stream_decoder.h"
#include "scheduler/engine.h"

namespace millrace::cli {
namespace {

constexpr char kName[] = "generate";

struct Options {
  LoadOptions load;
  std::string prompt;
  std::string chat;
  std::vector<std::uint32_t> tokens;
  std::uint32_t max_new_tokens = 128;
  float temperature = 1.0F;
  std::optional<std::uint64_t> seed;
  bool json = false;
};

struct Outcome {
  std::vector<std::uint32_t> prompt;
  std::vector<std::uint32_t> tokens;
  std::string text;
  std::string finish_reason;
  RequestUsage usage;
};

absl::StatusOr<std::vector<std::uint32_t>> PromptTokens(const Options& options,
                                                        const LoadedModel& model) {
  if (!options.tokens.empty()) return options.tokens;
  if (options.chat.empty()) return model.tokenizer->Encode(options.prompt, {});
  if (model.chat_template.empty()) {
    return absl::InvalidArgumentError("--chat: the file has no chat template; use --prompt");
  }
  MILLRACE_ASSIGN_OR_RETURN(
      const auto parsed, ChatTemplate::Parse(model.chat_template, model.bos_text, model.eos_text));
  ChatInput input;
  input.messages.push_back({.role = "user", .content = options.chat});
  MILLRACE_ASSIGN_OR_RETURN(const RenderedChat chat, parsed->Render(input));
  std::vector<TextRun> runs;
  for (const RenderedRun& run : chat.runs) runs.push_back({run.text, run.trusted});
  return model.tokenizer->EncodeRuns(runs, false);
}

absl::StatusOr<Request> MakeRequest(const Options& options, const LoadedModel& model,
                                    TimePoint now) {
  Request request;
  request.id = RequestId(1);
  MILLRACE_ASSIGN_OR_RETURN(request.prompt_tokens, PromptTokens(options, model));
  const std::uint32_t context = model.facts.context_length;
  const auto prompt = static_cast<std::uint32_t>(request.prompt_tokens.size());
  if (prompt == 0 || prompt >= context) {
    return absl::InvalidArgumentError(absl::StrCat("the prompt has ", prompt, " tokens; want 1 to ",
                                                   context - 1, " for a context of ", context));
  }
  for (const std::uint32_t token : request.prompt_tokens) {
    if (token >= model.facts.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--tokens: ", token, " is outside of the vocabulary of ", model.facts.vocab_size));
    }
  }
  request.sampling.sampler.temperature = options.temperature;
  request.sampling.sampler.seed = options.seed ? *options.seed : std::random_device{}();
  MILLRACE_RETURN_IF_ERROR(ValidateSamplingParams(request.sampling, model.facts.vocab_size));
  request.stopping.max_new_tokens = std::min(options.max_new_tokens, context - prompt);
  request.stopping.end_token_ids.assign(model.tokenizer->end_tokens().begin(),
                                        model.tokenizer->end_tokens().end());
  request.arrival = now;
  return request;
}

// Reads the request's events to the last one, streaming text to stdout unless `json`.
absl::StatusOr<Outcome> Collect(TokenChannel* channel, Engine* engine, bool json) {
  Outcome outcome;
  StreamDecoder decoder;
  const auto add_text = [&](const std::string& text) {
    outcome.text += text;
    if (!json) std::fputs(text.c_str(), stdout), std::fflush(stdout);
  };
  while (auto output = channel->Receive()) {
    for (const TokenEvent& event : output->events) {
      if (const auto* tokens = std::get_if<TokensEvent>(&event.what)) {
        for (const SampledToken& token : tokens->tokens) outcome.tokens.push_back(token.token);
        add_text(decoder.Push(tokens->released_bytes));
        engine->Credit(event.id, outcome.tokens.size());
      } else if (const auto* finished = std::get_if<FinishedEvent>(&event.what)) {
        add_text(decoder.Finish());
        outcome.finish_reason = finished->reason == FinishReason::kStop ? "stop" : "length";
        outcome.usage = finished->usage;
        return outcome;
      } else if (const auto* failed = std::get_if<FailedEvent>(&event.what)) {
        return failed->status;
      }
    }
  }
  return absl::InternalError("the engine ended before the request did");
}

absl::StatusOr<Outcome> Generate(const Options& options) {
  std::unique_ptr<ProgressBar> bar = std::make_unique<ProgressBar>("loading");
  LoadOptions load = options.load;
  load.progress = [&bar](std::uint64_t done, std::uint64_t total) { bar->Update(done, total); };
  MILLRACE_ASSIGN_OR_RETURN(LoadedModel model, LoadModel(load));
  bar.reset();
  const SteadyClock clock;
  TokenChannel channel;
  SchedulerOptions scheduler;
  scheduler.max_num_seqs = 1;
  MILLRACE_ASSIGN_OR_RETURN(const auto engine,
                            Engine::Create(scheduler, model.runner.get(),
                                           model.tokenizer->token_bytes(), &clock, &channel));
  engine->Start();
  MILLRACE_ASSIGN_OR_RETURN(Request request, MakeRequest(options, model, clock.Now()));
  std::vector<std::uint32_t> prompt = request.prompt_tokens;
  MILLRACE_RETURN_IF_ERROR(engine->Submit(std::move(request)));
  absl::StatusOr<Outcome> outcome = Collect(&channel, engine.get(), options.json);
  engine->BeginDrain(clock.Now());
  engine->Join();
  if (outcome.ok()) outcome->prompt = std::move(prompt);
  return outcome;
}

void PrintJson(const Outcome& outcome) {
  const nlohmann::json json = {{"prompt_token_ids", outcome.prompt},
                               {"token_ids", outcome.tokens},
                               {"text", outcome.text},
                               {"finish_reason", outcome.finish_reason},
                               {"prefill_seconds", ToSeconds(outcome.usage.prefill)},
                               {"decode_seconds", ToSeconds(outcome.usage.decode)}};
  std::puts(json.dump().c_str());
}

void PrintTimings(const Outcome& outcome) {
  const double prefill = ToSeconds(outcome.usage.prefill);
  const double decode = ToSeconds(outcome.usage.decode);
  const auto steps = static_cast<double>(outcome.tokens.size()) - 1;
  std::fprintf(stderr,
               "\nprompt %zu tokens in %.3f s (%.1f tok/s), generated %zu tokens in %.3f s (%.1f "
               "tok/s), %s\n",
               outcome.prompt.size(), prefill,
               prefill > 0 ? static_cast<double>(outcome.prompt.size()) / prefill : 0.0,
               outcome.tokens.size(), decode, decode > 0 ? steps / decode : 0.0,
               outcome.finish_reason.c_str());
}

}  // namespace

int RunGenerate(int argc, char** argv) {
  CLI::App app("Generates text in this process; text goes to stdout, timings to stderr", kName);
  Options options;
  app.add_option("--model", options.load.path, "The GGUF file")->required();
  auto* prompt = app.add_option("--prompt", options.prompt, "Raw text to go on with");
  auto* chat = app.add_option("--chat", options.chat,
                              "What a user says, put into the model's chat template");
  auto* tokens =
      app.add_option("--tokens", options.tokens, "Token ids, separated by commas")->delimiter(',');
  prompt->excludes(chat)->excludes(tokens);
  chat->excludes(tokens);
  app.add_option("--max-new-tokens", options.max_new_tokens, "At most so many tokens")
      ->capture_default_str();
  app.add_option("--temperature", options.temperature, "0 is greedy")->capture_default_str();
  app.add_option("--seed", options.seed, "Makes sampling repeatable; default: drawn anew");
  app.add_option("--device", options.load.device, kDeviceChoices)->capture_default_str();
  app.add_option("--matmul", options.load.matmul, kMatmulHelp)->capture_default_str();
  app.add_option("--ctx", options.load.context, "Context; 0: the model's, or what memory holds");
  app.add_option("--threads", options.load.threads,
                 "Worker threads, at most and (0) by default the physical cores the cgroup allows");
  app.add_option("--cpu-isa", options.load.cpu_isa, kCpuIsaChoices);
  app.add_option("--weight-cache", options.load.weight_cache, kWeightCacheHelp);
  app.add_flag("--json", options.json, "Prints one JSON object instead of text");
  if (const auto code = ParseFlags(&app, argc, argv)) return *code;
  if (prompt->empty() && chat->empty() && tokens->empty()) {
    return Fail(kName, "one of --prompt, --chat and --tokens is required", 2);
  }
  if (!IsDeviceChoice(options.load.device)) {
    return Fail(kName, absl::StrCat("--device ", options.load.device, ": want ", kDeviceChoices),
                2);
  }
  const absl::Status matmul = CheckMatmul(options.load.matmul, options.load.device);
  if (!matmul.ok()) return Fail(kName, std::string(matmul.message()), 2);
  options.load.max_num_seqs = 1;
  const absl::StatusOr<Outcome> outcome = Generate(options);
  if (!outcome.ok()) return Fail(kName, outcome.status());
  if (options.json) {
    PrintJson(*outcome);
  } else {
    PrintTimings(*outcome);
  }
  return 0;
}

}  // namespace millrace::cli
