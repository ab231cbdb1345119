// The serving scheduler drives the real small model: chunks, preemption, prefixes found in the
// cache, several answers, cancels, one thread and two. Every row of logits has the bits of the same
// sequence computed alone. The same program over a copy of the executor that adds up experts in
// another order for every second token of a step must find that (CMakeLists.txt).
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/scheduler.h"
#include "tests/support/model_steps.h"

namespace millrace {
namespace {

using testing::Logits;
using testing::Tokens;

constexpr char kDemoModel[] = "models/story-moe-q4_k_m.gguf";
constexpr std::int32_t kBlock = 16;
constexpr std::int32_t kBlocks = 17;  // a few sequences: they take each other's
constexpr std::int64_t kBytesPerToken = 3072;
constexpr std::int32_t kMaxPrompt = 100;
constexpr std::int32_t kMaxOutput = 40;
constexpr int kBatches = 100;

int NumBatches() { return std::getenv("MILLRACE_LONG") != nullptr ? 10 * kBatches : kBatches; }

LoadOptions Options(int threads) {
  LoadOptions options = testing::SmallOptions(kDemoModel);
  options.threads = threads;
  options.block_size = kBlock;
  options.kv_cache_bytes = kBlocks * kBlock * kBytesPerToken;
  options.max_num_batched_tokens = 48;
  options.max_logit_rows = 0;
  return options;
}

// One answer as it comes.
struct Answer {
  Tokens tokens;                        // prompt and generated
  std::map<std::int32_t, Logits> rows;  // by position
};

struct Counts {
  std::int64_t batches = 0;
  std::int64_t rows = 0;
  std::int64_t preemptions = 0;
  std::int64_t hit_tokens = 0;
  std::int64_t cancels = 0;

  bool all() const { return preemptions > 0 && hit_tokens > 0 && cancels > 0; }
};

class Load {
 public:
  Load(ModelRunner* runner, ModelRunner* reference, std::shared_ptr<const TokenBytes> token_bytes,
       std::uint32_t seed)
      : runner_(*runner),
        reference_(*reference),
        scheduler_({.max_num_seqs = 6,
                    .max_num_batched_tokens = 48,
                    .max_queue_tokens = 1 << 30,
                    .itl_target = std::chrono::milliseconds(5)},
                   runner->info(), std::move(token_bytes)),
        rng_(seed) {}

  // So many batches, and more until everything that is to be shown has happened.
  void Run(int batches) {
    while (counts_.batches < batches || (!counts_.all() && counts_.batches < 20 * batches)) {
      if (::testing::Test::HasFatalFailure()) return;
      while (scheduler_.num_running() + scheduler_.num_waiting() < 8) Submit();
      Step();
      if (Uniform(1, 100) <= 4) CancelAny();
    }
    scheduler_.ShutDownAll(now_);
    for (const auto& [key, answer] : answers_) Compare(answer);
  }
  const Counts& counts() const { return counts_; }

 private:
  using Key = std::pair<RequestId, std::uint32_t>;

  std::int32_t Uniform(std::int32_t low, std::int32_t high) {
    return std::uniform_int_distribution<std::int32_t>(low, high)(rng_);
  }

  // Prompts begin like one of three texts.
  void Submit() {
    Request request;
    request.id = RequestId(++submitted_);
    std::mt19937 text(static_cast<std::uint32_t>(Uniform(1, 3)));
    const std::int32_t length = Uniform(1, kMaxPrompt);
    const std::int32_t common = Uniform(0, length);
    for (std::int32_t i = 0; i < length; ++i) {
      const auto token = i < common ? text() % 4096 : static_cast<std::uint32_t>(Uniform(0, 4095));
      request.prompt_tokens.push_back(static_cast<std::uint32_t>(token));
    }
    request.sampling.sampler.temperature = Uniform(0, 1) == 0 ? 0.0F : 1.0F;
    request.sampling.sampler.seed = submitted_;
    request.stopping.max_new_tokens = static_cast<std::uint32_t>(Uniform(1, kMaxOutput));
    request.num_sequences = Uniform(1, 5) == 1 ? 2 : 1;
    request.arrival = now_;
    for (std::uint32_t index = 0; index < request.num_sequences; ++index) {
      Answer& answer = answers_[{request.id, index}];
      answer.tokens.assign(request.prompt_tokens.begin(), request.prompt_tokens.end());
    }
    scheduler_.Submit(std::move(request), now_);
  }

  void Step() {
    StepPlan plan = scheduler_.Schedule(now_);
    ASSERT_FALSE(plan.empty());
    plan.batch.return_logits = true;
    const auto ticket = runner_.Launch(plan.batch);
    ASSERT_TRUE(ticket.ok()) << ticket.status();
    scheduler_.Launched(plan, *ticket);
    const auto result = runner_.Await(*ticket);
    ASSERT_TRUE(result.ok()) << result.status();
    Keep(plan, *result);
    now_ += std::chrono::milliseconds(2);
    scheduler_.Commit(plan, *result, std::chrono::milliseconds(2), now_);
    scheduler_.CheckInvariants();
    TakeEvents();
    ++counts_.batches;
    counts_.preemptions += plan.preemptions;
    counts_.hit_tokens += plan.prefix_cache.hit_tokens;
  }

  void Keep(const StepPlan& plan, const ForwardResult& result) {
    const auto vocab = static_cast<std::size_t>(runner_.info().vocab);
    for (std::size_t i = 0; i < plan.sequences.size(); ++i) {
      const PlannedSequence& planned = plan.sequences[i];
      if (planned.logit_row < 0) continue;
      const auto row = testing::Row(result.logits, static_cast<std::size_t>(planned.logit_row),
                                    static_cast<std::int32_t>(vocab));
      answers_.at({planned.id, planned.index})
          .rows.emplace(plan.batch.context_len[i] - 1, Logits(row.begin(), row.end()));
    }
  }

  void TakeEvents() {
    for (const TokenEvent& event : scheduler_.TakeEvents()) {
      if (const auto* tokens = std::get_if<TokensEvent>(&event.what)) {
        Tokens& to = answers_.at({event.id, tokens->index}).tokens;
        for (const SampledToken& token : tokens->tokens) {
          to.push_back(static_cast<std::int32_t>(token.token));
        }
        scheduler_.Credit(event.id, UINT64_MAX);
      } else if (const auto* finished = std::get_if<FinishedEvent>(&event.what)) {
        End({event.id, finished->index});
      }
    }
  }

  void CancelAny() {
    if (answers_.empty()) return;
    auto at = answers_.begin();
    std::advance(at, Uniform(0, static_cast<std::int32_t>(answers_.size()) - 1));
    const RequestId id = at->first.first;
    scheduler_.Cancel(id, now_);
    scheduler_.TakeEvents();
    for (const std::uint32_t index : {0U, 1U}) {
      if (answers_.contains({id, index})) End({id, index});
    }
    ++counts_.cancels;
  }

  void End(const Key& key) {
    Compare(answers_.at(key));
    answers_.erase(key);
  }

  void Compare(const Answer& answer) {
    if (answer.rows.empty()) return;
    const std::int32_t vocab = runner_.info().vocab;
    const Logits alone = testing::ForwardAlone(&reference_, answer.tokens);
    for (const auto& [position, row] : answer.rows) {
      ++counts_.rows;
      ASSERT_TRUE(
          testing::SameBits(row, testing::Row(alone, static_cast<std::size_t>(position), vocab)))
          << "the logits at " << position << " are not those of the sequence alone";
    }
  }

  ModelRunner& runner_;
  ModelRunner& reference_;
  Scheduler scheduler_;
  std::mt19937 rng_;
  TimePoint now_{std::chrono::seconds(1)};
  std::uint64_t submitted_ = 0;
  std::map<Key, Answer> answers_;
  Counts counts_;
};

TEST(ScheduledLogits, HaveTheBitsOfTheSequenceAlone) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  const LoadedModel reference = testing::MustLoad(testing::SmallOptions(kDemoModel));
  ASSERT_TRUE(reference.runner);
  for (const int threads : {1, 2}) {
    const LoadedModel model = testing::MustLoad(Options(threads));
    ASSERT_TRUE(model.runner);
    ASSERT_EQ(model.runner->info().num_kv_blocks, kBlocks);
    Load load(model.runner.get(), reference.runner.get(), model.tokenizer->token_bytes(), seed);
    load.Run(NumBatches());
    if (HasFatalFailure()) return;
    const Counts& counts = load.counts();
    std::printf(
        "%d threads: %lld batches, %lld rows, %lld preemptions, %lld positions found, %lld "
        "cancels\n",
        threads, static_cast<long long>(counts.batches), static_cast<long long>(counts.rows),
        static_cast<long long>(counts.preemptions), static_cast<long long>(counts.hit_tokens),
        static_cast<long long>(counts.cancels));
    EXPECT_GT(counts.rows, counts.batches);
    EXPECT_GT(counts.preemptions, 0);
    EXPECT_GT(counts.hit_tokens, 0);
    EXPECT_GT(counts.cancels, 0);
  }
}

}  // namespace
}  // namespace millrace
