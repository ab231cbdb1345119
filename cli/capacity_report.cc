#include "cli/capacity_report.h"

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_format.h"
#include "cli/cli_util.h"

namespace millrace::cli {
namespace {

// Contexts that people ask for, beside the model's own.
constexpr std::array<std::int32_t, 3> kContexts = {1024, 4096, 16384};

std::vector<std::int32_t> ContextsOf(const CapacityFigures& figures) {
  std::vector<std::int32_t> contexts;
  for (const std::int32_t context : kContexts) {
    if (context < figures.context) contexts.push_back(context);
  }
  contexts.push_back(figures.context);
  return contexts;
}

void PrintHolds(const CapacityReport& report) {
  const CapacityFigures& figures = report.figures;
  std::printf("%s, %s, %s\n\n", report.facts.name.c_str(), report.facts.quantisation.c_str(),
              report.facts.device.c_str());
  std::printf("memory            %s\n", report.memory_plan.c_str());
  std::printf("weights           %s\n", Sized(report.weight_bytes).c_str());
  std::printf("KV cache          %llu bytes a token in %s, %d blocks of %d tokens\n\n",
              static_cast<unsigned long long>(report.facts.kv_bytes_per_token),
              report.kv_dtype.c_str(), figures.kv_blocks, figures.block_size);
  std::printf("%-17s %s\n", "context", "sequences at once");
  for (const std::int32_t context : ContextsOf(figures)) {
    std::printf("%-17d %d\n", context, SequencesThatFit(figures, context));
  }
}

void PrintDoes(const CapacityFigures& figures) {
  std::printf("\nprefill           %.1f tokens/s, prompts of %d tokens\n",
              figures.prefill_tokens_per_second, figures.prompt_tokens);
  std::printf("serving adds      %.0f us a token\n\n", 1e6 * figures.service_seconds_per_token);
  std::printf("%-17s %10s %12s   %s\n", "sequences at once", "ms a step", "decode tok/s",
              absl::StrFormat("served tok/s, %d tokens in and %d out", figures.prompt_tokens,
                              figures.output_tokens)
                  .c_str());
  for (const BatchRate& rate : figures.decode) {
    std::printf("%-17d %10.2f %12.1f   %.1f\n", rate.batch, 1e3 * rate.step_seconds,
                rate.tokens_per_second(), PredictTokensPerSecond(figures, rate.batch));
  }
}

}  // namespace

nlohmann::ordered_json CapacityJson(const CapacityReport& report) {
  const CapacityFigures& figures = report.figures;
  const std::vector<Suggestion> suggestions = Suggest(figures);
  nlohmann::ordered_json out = {{"model", report.facts.name},
                                {"quantisation", report.facts.quantisation},
                                {"device", report.facts.device},
                                {"threads", report.threads},
                                {"weight_bytes", report.weight_bytes},
                                {"kv_dtype", report.kv_dtype},
                                {"kv_bytes_per_token", report.facts.kv_bytes_per_token},
                                {"context_length", figures.context},
                                {"kv_blocks", figures.kv_blocks},
                                {"block_size", figures.block_size},
                                {"kv_positions", figures.positions()},
                                {"memory_plan", report.memory_plan},
                                {"prompt_tokens", figures.prompt_tokens},
                                {"output_tokens", figures.output_tokens},
                                {"prefill_tokens_per_second", figures.prefill_tokens_per_second},
                                {"service_seconds_per_token", figures.service_seconds_per_token}};
  for (const std::int32_t context : ContextsOf(figures)) {
    out["sequences"].push_back(
        {{"context", context}, {"most", SequencesThatFit(figures, context)}});
  }
  for (const BatchRate& rate : figures.decode) {
    out["batches"].push_back(
        {{"batch", rate.batch},
         {"step_seconds", rate.step_seconds},
         {"decode_tokens_per_second", rate.tokens_per_second()},
         {"predicted_tokens_per_second", PredictTokensPerSecond(figures, rate.batch)}});
  }
  for (const Suggestion& s : suggestions) {
    out["suggested"][s.name] = {{"value", s.value}, {"reason", s.reason}, {"why", s.why}};
  }
  const auto places = static_cast<double>(suggestions.front().value);
  out["predicted"] = {{"concurrency", suggestions.front().value},
                      {"tokens_per_second", PredictTokensPerSecond(figures, places)}};
  return out;
}

void PrintCapacity(const CapacityReport& report) {
  PrintHolds(report);
  PrintDoes(report.figures);
  std::printf("\n%-21s %6s   %s\n", "suggested", "value", "reason");
  for (const Suggestion& s : Suggest(report.figures)) {
    std::printf("%-21s %6lld   %s: %s\n", s.name.c_str(), static_cast<long long>(s.value),
                s.reason.c_str(), s.why.c_str());
  }
}

}  // namespace millrace::cli
