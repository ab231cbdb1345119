#include "cli/capacity_measure.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/status.h"
#include "cli/bench_run.h"
#include "cli/cli_util.h"
#include "cli/load_plan.h"
#include "cli/load_runner.h"
#include "cli/version.h"
#include "scheduler/engine.h"
#include "service/server.h"

namespace millrace::cli {
namespace {

// Of a row: many steps of a small model, and a few of a large one.
constexpr double kRowSeconds = 0.4;
constexpr std::size_t kLeastSteps = 5;
constexpr std::size_t kLeastPrompts = 2;  // beside those that fill the batches
// A row's time is one that only a tenth of the steps are below: other processes can only add to a
// step. Where there are none it is the median, within some percent.
constexpr std::size_t kQuantileOf = 10;
// The rate stops growing when so many rows in a row bring nothing: kernels have steps of their own
// at small batches, which must not end it.
constexpr std::size_t kRowsWithoutGrowth = 2;
// A token that takes longer than this in the runner hardly notices what the service adds to it,
// some tens of microseconds; then there is no need to measure that.
constexpr double kSlowTokenSeconds = 0.002;
// Of a load through the service.
constexpr double kServiceSeconds = 0.7;
constexpr int kServiceLoads = 3;  // the best counts, for the same reason
// The largest share that serve gives a step, by default.
constexpr auto kItlTarget = std::chrono::milliseconds(250);

double Typical(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / kQuantileOf];
}

// The rows of one model: sequences that are made as the batch grows, and stay in the cache.
class RunnerRates {
 public:
  RunnerRates(ModelRunner* runner, CapacityFigures* figures)
      : figures_(figures),
        most_(
            std::min(figures->max_num_seqs,
                     SequencesThatFit(*figures, figures->prompt_tokens + figures->output_tokens))),
        run_(runner, most_, BenchTokens::kSampled) {}

  absl::Status Measure() {
    MILLRACE_RETURN_IF_ERROR(MeasurePrefill());
    const auto rows = std::bit_width(static_cast<std::uint32_t>(most_)) + 1U;
    for (std::int32_t batch = 1;; batch = std::min(2 * batch, most_)) {
      MILLRACE_RETURN_IF_ERROR(AddSequences(batch));
      figures_->decode.push_back({batch, std::numeric_limits<double>::infinity()});
      MILLRACE_RETURN_IF_ERROR(MeasureRow(&figures_->decode.back()));
      bar_.Update(figures_->decode.size(), rows);
      if (batch == most_) return MeasureRowsAgain();
      if (Grows()) continue;
      // A disturbance looks the same: believed when seen twice.
      MILLRACE_RETURN_IF_ERROR(MeasureRowsAgain());
      if (!Grows()) return absl::OkStatus();
    }
  }

 private:
  absl::Status MeasurePrefill() {
    MILLRACE_RETURN_IF_ERROR(run_.Prefill(0, 0, figures_->prompt_tokens));  // warms up
    const TimePoint begin = clock_.Now();
    while (prefill_seconds_.size() < kLeastPrompts ||
           ToSeconds(clock_.Now() - begin) < kRowSeconds) {
      MILLRACE_RETURN_IF_ERROR(TimePrompt(0));
    }
    return absl::OkStatus();
  }

  absl::Status TimePrompt(std::int32_t s) {
    const TimePoint begin = clock_.Now();
    MILLRACE_RETURN_IF_ERROR(run_.Prefill(s, 0, figures_->prompt_tokens));
    prefill_seconds_.push_back(ToSeconds(clock_.Now() - begin));
    figures_->prefill_tokens_per_second = figures_->prompt_tokens / Typical(prefill_seconds_);
    return absl::OkStatus();
  }

  // Their prompts are measured too. With half of their answers, so that the steps of a row are
  // those of the middle of an answer.
  absl::Status AddSequences(std::int32_t batch) {
    for (; sequences_ < batch; ++sequences_) {
      MILLRACE_RETURN_IF_ERROR(TimePrompt(sequences_));
      MILLRACE_RETURN_IF_ERROR(run_.Prefill(sequences_, figures_->prompt_tokens, Middle()));
    }
    return absl::OkStatus();
  }

  absl::Status MeasureRowsAgain() {
    for (BatchRate& row : figures_->decode) MILLRACE_RETURN_IF_ERROR(MeasureRow(&row));
    return absl::OkStatus();
  }

  // Keeps the better of this time and those before.
  absl::Status MeasureRow(BatchRate* row) {
    const std::int32_t room = figures_->prompt_tokens + figures_->output_tokens - Middle();
    std::vector<double> steps;
    const TimePoint begin = clock_.Now();
    MILLRACE_RETURN_IF_ERROR(run_.Decode(row->batch, Middle()));  // warms up
    for (std::int32_t i = 0;
         steps.size() < kLeastSteps || ToSeconds(clock_.Now() - begin) < kRowSeconds; ++i) {
      const TimePoint step = clock_.Now();
      MILLRACE_RETURN_IF_ERROR(run_.Decode(row->batch, Middle() + i % room));
      steps.push_back(ToSeconds(clock_.Now() - step));
    }
    row->step_seconds = std::min(row->step_seconds, Typical(std::move(steps)));
    return absl::OkStatus();
  }

  // The best of the last rows against the best before them.
  bool Grows() const {
    const auto& rows = figures_->decode;
    if (rows.size() <= kRowsWithoutGrowth) return true;
    const auto last = rows.end() - static_cast<std::ptrdiff_t>(kRowsWithoutGrowth);
    return BestRate(last, rows.end()) >= kLeastGrowth * BestRate(rows.begin(), last);
  }

  template <typename Row>
  static double BestRate(Row begin, Row end) {
    double best = 0;
    for (; begin != end; ++begin) best = std::max(best, begin->tokens_per_second());
    return best;
  }

  std::int32_t Middle() const { return figures_->prompt_tokens + figures_->output_tokens / 2; }

  CapacityFigures* const figures_;
  const std::int32_t most_;
  const SteadyClock clock_;
  BenchRun run_;
  std::int32_t sequences_ = 0;
  std::vector<double> prefill_seconds_;
  ProgressBar bar_{"measuring"};
};

std::shared_ptr<const ServedModel> MakeServed(const LoadedModel& model) {
  auto served = std::make_shared<ServedModel>();
  served->info.set_name("capacity");
  served->info.set_vocab_size(model.facts.vocab_size);
  served->info.set_context_length(model.facts.context_length);
  served->tokenizer = model.tokenizer;
  served->chat_status = absl::InvalidArgumentError("no chats while measuring");
  return served;
}

absl::StatusOr<double> SecondsPerToken(const LoadResult& result) {
  std::uint64_t tokens = 0;
  for (const CallOutcome& call : result.calls) {
    if (call.code != "OK") return absl::InternalError("a measured request ended with " + call.code);
    tokens += call.tokens;
  }
  return result.seconds / static_cast<double>(tokens);
}

// Seconds that a generated token of `load` takes when it goes through a server and a client, both
// in this process.
absl::StatusOr<double> ServedSecondsPerToken(LoadedModel* model, std::int32_t places,
                                             LoadgenOptions load) {
  const SteadyClock clock;
  TokenChannel channel;
  SchedulerOptions scheduler;
  scheduler.max_num_seqs = places;
  scheduler.max_num_batched_tokens = model->runner->info().max_step_tokens;
  scheduler.itl_target = kItlTarget;
  MILLRACE_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                            Engine::Create(scheduler, model->runner.get(),
                                           model->tokenizer->token_bytes(), &clock, &channel));
  ServerOptions options = {.listen = "127.0.0.1:0", .metrics = "127.0.0.1:0", .version = kVersion};
  MILLRACE_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server, Server::Listen(options, &clock));
  engine->Start();
  server->Serve(MakeServed(*model), engine.get(), &channel, model->runner->info().block_size,
                [] {});
  load.target = server->grpc_address();
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<PlannedCall> calls,
                            PlanLoad(load, model->facts.context_length));
  const auto to = grpc::CreateChannel(load.target, grpc::InsecureChannelCredentials());
  double best = std::numeric_limits<double>::infinity();
  absl::Status status;
  for (int i = 0; i < kServiceLoads && status.ok(); ++i) {
    engine->FlushPrefixCache();  // each load's prompts are the same
    const absl::StatusOr<double> seconds =
        SecondsPerToken(RunLoad(to, load, calls, model->facts.vocab_size));
    status = seconds.status();
    if (status.ok()) best = std::min(best, *seconds);
  }
  server->ShutDown(Duration::zero());
  if (!status.ok()) return status;
  return best;
}

}  // namespace

absl::Status MeasureCapacity(LoadedModel* model, CapacityFigures* figures) {
  MILLRACE_RETURN_IF_ERROR(RunnerRates(model->runner.get(), figures).Measure());
  const auto places = static_cast<std::int32_t>(Suggest(*figures).front().value);
  const double without = 1 / PredictTokensPerSecond(*figures, places);
  if (without > kSlowTokenSeconds) return absl::OkStatus();
  LoadgenOptions load;
  load.concurrency = places;
  load.prompt_tokens = absl::StrCat(figures->prompt_tokens);
  load.output_tokens = absl::StrCat(figures->output_tokens);
  // Whole rounds, of which the last ends for all at once.
  const double round = without * places * figures->output_tokens;
  load.requests = places * std::max(2, static_cast<int>(std::ceil(kServiceSeconds / round)));
  MILLRACE_ASSIGN_OR_RETURN(const double with, ServedSecondsPerToken(model, places, load));
  figures->service_seconds_per_token = with - without;
  return absl::OkStatus();
}

}  // namespace millrace::cli
