#include "cli/capacity_plan.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace millrace::cli {
namespace {

// As long as a caller should wait for a place while another server starts.
constexpr double kWaitSeconds = 5;
// The default of the scaler: a fuller cache leaves prefixes no room.
constexpr double kMostKvPercent = 80;
// With less, more of the cache lies idle than is used.
constexpr double kLeastKvPercent = 50;
// Places beyond those that give this share of the full rate make callers slower, and add little.
constexpr double kKnee = 0.9;
// Where one or two places give all of it: with less, nearly every caller would have a server.
constexpr std::int64_t kLeastRunningPercent = 50;
constexpr double kPercent = 100;

double StepSeconds(const std::vector<BatchRate>& rates, double batch) {
  for (std::size_t i = 1; i < rates.size(); ++i) {
    if (batch > rates[i].batch) continue;
    const BatchRate& low = rates[i - 1];
    const double share = (batch - low.batch) / (rates[i].batch - low.batch);
    return low.step_seconds + share * (rates[i].step_seconds - low.step_seconds);
  }
  return rates.back().step_seconds;
}

// The smallest batch that has all but a growth of the best decode rate.
Suggestion SuggestPlaces(const CapacityFigures& figures) {
  constexpr char kFlag[] = "--max-num-seqs";
  const std::vector<BatchRate>& rates = figures.decode;
  double best = 0;
  for (const BatchRate& rate : rates) best = std::max(best, rate.tokens_per_second());
  const auto enough = std::find_if(rates.begin(), rates.end(), [best](const BatchRate& rate) {
    return rate.tokens_per_second() * kLeastGrowth >= best;
  });
  if (enough + 1 != rates.end()) {
    return {
        kFlag, enough->batch, "rate",
        absl::StrFormat("decode grows by no more than %.0f %% from here to %d",
                        kPercent * (best / enough->tokens_per_second() - 1), rates.back().batch)};
  }
  if (enough->batch < figures.max_num_seqs) {
    return {kFlag, enough->batch, "memory", "the KV cache holds no more requests of this mix"};
  }
  return {kFlag, enough->batch, "limit", "the rate still grew; a larger --max-num-seqs shows more"};
}

Suggestion SuggestQueue(const CapacityFigures& figures, std::int64_t places) {
  const double requests =
      PredictTokensPerSecond(figures, static_cast<double>(places)) / figures.output_tokens;
  return {
      "targetQueue", std::max<std::int64_t>(1, std::llround(requests * kWaitSeconds)), "wait",
      absl::StrFormat("%.2f requests a second end: so many wait %.0f s", requests, kWaitSeconds)};
}

Suggestion SuggestKv(const CapacityFigures& figures, std::int64_t places) {
  // On average half of the answer is still to come, for each of the running.
  const double growth = kPercent * static_cast<double>(places) * figures.output_tokens / 2 /
                        static_cast<double>(figures.positions());
  const double value = std::clamp(std::floor(kPercent - growth), kLeastKvPercent, kMostKvPercent);
  return {"targetKvPercent", static_cast<std::int64_t>(value), "growth",
          absl::StrFormat("running answers still grow by %.1f %% of the cache", growth)};
}

Suggestion SuggestRunning(const CapacityFigures& figures, std::int64_t places) {
  const double full = PredictTokensPerSecond(figures, static_cast<double>(places));
  std::int64_t knee = 1;
  while (knee < places &&
         PredictTokensPerSecond(figures, static_cast<double>(knee)) < kKnee * full) {
    ++knee;
  }
  const std::int64_t percent = std::max(kLeastRunningPercent, 100 * knee / places);
  return {"targetRunningPercent", percent, "knee",
          absl::StrCat(knee, " of ", places, " places give ", static_cast<int>(kPercent * kKnee),
                       " % of the rate")};
}

}  // namespace

std::int32_t SequencesThatFit(const CapacityFigures& figures, std::int32_t context) {
  return figures.kv_blocks / ((context + figures.block_size - 1) / figures.block_size);
}

double PredictTokensPerSecond(const CapacityFigures& figures, double concurrency) {
  const double token = StepSeconds(figures.decode, concurrency) / concurrency;
  // The first token comes with the prompt.
  const double prompt = figures.prompt_tokens / figures.prefill_tokens_per_second;
  const double steps = (figures.output_tokens - 1) * token;
  const double service = figures.output_tokens * figures.service_seconds_per_token;
  // What serving saves is at most the prompts' time: more is noise of the measurement.
  const double decode = figures.output_tokens * token;
  return figures.output_tokens / std::max(decode, prompt + steps + service);
}

std::vector<Suggestion> Suggest(const CapacityFigures& figures) {
  const Suggestion places = SuggestPlaces(figures);
  return {places, SuggestQueue(figures, places.value), SuggestKv(figures, places.value),
          SuggestRunning(figures, places.value)};
}

}  // namespace millrace::cli
