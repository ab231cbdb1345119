// The logits of a sequence do not depend, to the bit, on what it is batched with, how its prompt is
// cut into chunks, which blocks it has, how many threads there are, which level of kernels runs,
// nor on having been preempted and computed again.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <utility>

#include "tests/support/model_steps.h"

namespace millrace {
namespace {

using testing::Chunk;
using testing::ForwardAlone;
using testing::Iota;
using testing::Logits;
using testing::MustLoad;
using testing::RunStep;
using testing::SameBits;
using testing::Tokens;

constexpr char kDemoModel[] = "models/story-moe-q4_k_m.gguf";
constexpr std::int32_t kMaxLength = 80;  // crosses the borders of blocks of 16, 32 and 64
constexpr std::int32_t kMaxSeqs = 6;
constexpr std::size_t kVocabularyUsed = 4096;
// Instrumented code is slower by an order of magnitude.
#ifdef __SANITIZE_ADDRESS__
constexpr int kBatches = 20;
#else
constexpr int kBatches = 100;
#endif

int NumBatches() { return std::getenv("MILLRACE_LONG") != nullptr ? 10 * kBatches : kBatches; }

// Sequences of random tokens with the logits each has alone, computed in one step on the level
// that `reference` runs.
struct Corpus {
  std::vector<Tokens> sequences;
  std::vector<Logits> alone;  // [length, vocab] each
};

Corpus MakeCorpus(ModelRunner* reference, std::uint32_t seed) {
  std::mt19937 rng(seed);
  std::uniform_int_distribution<std::int32_t> token(0, kVocabularyUsed - 1);
  std::uniform_int_distribution<std::int32_t> length(1, kMaxLength);
  Corpus corpus;
  for (int i = 0; i < 12; ++i) {
    Tokens tokens(static_cast<std::size_t>(i == 0 ? kMaxLength : length(rng)));
    for (std::int32_t& t : tokens) t = token(rng);
    corpus.alone.push_back(ForwardAlone(reference, tokens));
    corpus.sequences.push_back(std::move(tokens));
  }
  return corpus;
}

// A sequence on its way through random steps.
struct Running {
  std::size_t index = 0;  // in the corpus
  std::int32_t computed = 0;
  Tokens blocks;
};

// Plays random steps, as a scheduler could plan them, and compares every row of logits.
class RandomSteps {
 public:
  RandomSteps(ModelRunner* runner, const Corpus* corpus, std::uint32_t seed)
      : runner_(runner), corpus_(corpus), rng_(seed), free_(Iota(runner->info().num_kv_blocks)) {}

  void Step() {
    std::vector<Chunk> chunks;
    std::vector<Running> planned;
    Admit();
    for (Running& sequence : running_) {
      if (sequence.computed > 0 && Chance(10)) Preempt(&sequence);
      if (Chance(10)) continue;  // sits this step out
      chunks.push_back(NextChunk(sequence));
      planned.push_back(sequence);
      sequence.computed += chunks.back().count;
    }
    if (chunks.empty()) return;
    Compare(chunks, planned, RunStep(runner_, chunks));
    Retire();
  }

 private:
  std::int32_t Uniform(std::int32_t low, std::int32_t high) {
    return std::uniform_int_distribution<std::int32_t>(low, high)(rng_);
  }
  bool Chance(int percent) { return Uniform(0, 99) < percent; }

  // Random blocks for the whole sequence; the runner has enough for all.
  Tokens TakeBlocks(std::int32_t length) {
    std::shuffle(free_.begin(), free_.end(), rng_);
    const std::int32_t size = runner_->info().block_size;
    const std::int32_t count = (length + size - 1) / size;
    Tokens taken(free_.end() - count, free_.end());
    free_.resize(free_.size() - static_cast<std::size_t>(count));
    return taken;
  }
  void Release(Running* sequence) {
    free_.insert(free_.end(), sequence->blocks.begin(), sequence->blocks.end());
    sequence->blocks.clear();
  }
  std::int32_t Length(const Running& sequence) const {
    return static_cast<std::int32_t>(corpus_->sequences[sequence.index].size());
  }

  void Admit() {
    while (static_cast<std::int32_t>(running_.size()) < kMaxSeqs && !Chance(30)) {
      Running sequence;
      sequence.index = static_cast<std::size_t>(
          Uniform(0, static_cast<std::int32_t>(corpus_->sequences.size()) - 1));
      sequence.blocks = TakeBlocks(Length(sequence));
      running_.push_back(std::move(sequence));
    }
  }
  // Drops what was computed and starts again in other blocks.
  void Preempt(Running* sequence) {
    const Tokens fresh = TakeBlocks(Length(*sequence));
    Release(sequence);
    sequence->blocks = fresh;
    sequence->computed = 0;
  }
  // One token, as in decoding, or a piece of a prompt.
  Chunk NextChunk(const Running& sequence) {
    const std::int32_t left = Length(sequence) - sequence.computed;
    const std::int32_t count = Chance(40) ? 1 : Uniform(1, std::min(left, 40));
    return {corpus_->sequences[sequence.index], sequence.computed, count, sequence.blocks};
  }
  void Compare(const std::vector<Chunk>& chunks, const std::vector<Running>& planned,
               const Logits& logits) const {
    const auto vocab = static_cast<std::size_t>(runner_->info().vocab);
    std::size_t row = 0;
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      const auto count = static_cast<std::size_t>(chunks[i].count);
      const auto want =
          std::span(corpus_->alone[planned[i].index])
              .subspan(static_cast<std::size_t>(chunks[i].begin) * vocab, count * vocab);
      ASSERT_LE((row + count) * vocab, logits.size());
      ASSERT_TRUE(SameBits(std::span(logits).subspan(row * vocab, count * vocab), want))
          << "sequence " << i << " of " << chunks.size() << ", positions " << chunks[i].begin
          << " and " << count - 1 << " more";
      row += count;
    }
  }
  void Retire() {
    for (Running& sequence : running_) {
      if (sequence.computed == Length(sequence)) Release(&sequence);
    }
    std::erase_if(running_, [this](const Running& s) { return s.computed == Length(s); });
  }

  ModelRunner* const runner_;
  const Corpus* const corpus_;
  std::mt19937 rng_;
  Tokens free_;
  std::vector<Running> running_;
};

struct Variant {
  std::string isa;
  int threads;
  std::int32_t block_size;
  KvDType kv;
  int percent;  // of all batches
};

LoadOptions OptionsOf(const Variant& variant) {
  LoadOptions options = testing::SmallOptions(kDemoModel);
  options.cpu_isa = variant.isa;
  options.threads = variant.threads;
  options.block_size = variant.block_size;
  options.kv_dtype = variant.kv;
  return options;
}

// Every level, thread count and block size; few batches where kernels are slow.
std::vector<Variant> Variants(KvDType kv) {
  std::vector<Variant> out;
  for (const std::string& isa : testing::IsaLevels()) {
    const int percent = isa == "scalar" ? 5 : 25;
    out.push_back({isa, 1, 16, kv, percent});
    out.push_back({isa, 2, 32, kv, percent});
    out.push_back({isa, 2, 64, kv, percent});
    if (isa != "scalar") out.push_back({isa, 2, 16, kv, percent});
  }
  return out;
}

class BatchInvariance : public ::testing::TestWithParam<KvDType> {};

// FALSIFY-KCE-005 and FALSIFY-CB-003: chunks of any size give the bits of one chunk.
// FALSIFY-CB-006: a sequence in a batch is itself alone.
TEST_P(BatchInvariance, SequencesInRandomBatchesHaveTheBitsTheyHaveAlone) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  const Variant first{"auto", 1, 16, GetParam(), 0};
  const LoadedModel reference = MustLoad(OptionsOf(first));
  ASSERT_TRUE(reference.runner);
  const Corpus corpus = MakeCorpus(reference.runner.get(), seed);
  for (const Variant& variant : Variants(GetParam())) {
    SCOPED_TRACE(variant.isa + ", threads " + std::to_string(variant.threads) + ", blocks of " +
                 std::to_string(variant.block_size));
    const LoadedModel model = MustLoad(OptionsOf(variant));
    ASSERT_TRUE(model.runner);
    RandomSteps steps(model.runner.get(), &corpus, seed + 1);
    const int batches = std::max(2, NumBatches() * variant.percent / 100);
    for (int i = 0; i < batches && !HasFatalFailure(); ++i) steps.Step();
    if (HasFatalFailure()) return;
  }
}

TEST_P(BatchInvariance, APromptCutAtEverySizeHasTheBitsOfOnePiece) {
  const Variant variant{"auto", 2, 16, GetParam(), 0};
  const LoadedModel model = MustLoad(OptionsOf(variant));
  ASSERT_TRUE(model.runner);
  const Corpus corpus = MakeCorpus(model.runner.get(), 7);
  const Tokens& tokens = corpus.sequences[0];
  const auto vocab = static_cast<std::size_t>(model.runner->info().vocab);
  const Tokens blocks = Iota(model.runner->info().num_kv_blocks);
  for (std::int32_t size = 1; size <= kMaxLength; ++size) {
    for (std::int32_t begin = 0; begin < kMaxLength; begin += size) {
      const Chunk chunk{tokens, begin, std::min(size, kMaxLength - begin), blocks};
      const Logits logits = RunStep(model.runner.get(), {&chunk, 1});
      const auto want = std::span(corpus.alone[0])
                            .subspan(static_cast<std::size_t>(begin) * vocab, logits.size());
      ASSERT_TRUE(SameBits(logits, want)) << "chunks of " << size << ", position " << begin;
    }
  }
}

// One worker takes the partitions of a prompt's queries in runs; two take them apart and merge
// them, since there are not enough runs for both.
TEST_P(BatchInvariance, ALongPromptHasTheSameBitsInRunsAndInPartitions) {
  constexpr std::int32_t kLength = 600;
  std::vector<Logits> logits;
  Tokens tokens(kLength);
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 rng(seed);
  std::uniform_int_distribution<std::int32_t> token(0, kVocabularyUsed - 1);
  for (std::int32_t& t : tokens) t = token(rng);
  for (const int threads : {1, 2}) {
    LoadOptions options = OptionsOf({"auto", threads, 32, GetParam(), 0});
    options.context = kLength + 8;
    options.max_num_batched_tokens = kLength;
    options.max_logit_rows = kLength;
    const LoadedModel model = MustLoad(options);
    ASSERT_TRUE(model.runner);
    logits.push_back(ForwardAlone(model.runner.get(), tokens));
  }
  EXPECT_TRUE(SameBits(logits[0], logits[1]));
}

// Several sequences read one copy of a prefix longer than a partition, and branch at different
// places; attention takes what they have in common once for all.
TEST_P(BatchInvariance, SequencesThatShareTheBlocksOfAPrefixHaveTheBitsTheyHaveAlone) {
  constexpr std::int32_t kPrefix = 560;
  constexpr std::int32_t kBranch = 300;  // where the last two leave it
  constexpr std::int32_t kLength = 600;
  constexpr std::int32_t kSize = 16;  // of a block
  LoadOptions options = OptionsOf({"auto", 2, kSize, GetParam(), 0});
  options.context = kLength + 8;
  options.max_num_batched_tokens = kLength;
  options.max_logit_rows = kLength;
  const LoadedModel model = MustLoad(options);
  ASSERT_TRUE(model.runner);
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 rng(seed);
  std::uniform_int_distribution<std::int32_t> token(0, kVocabularyUsed - 1);
  std::vector<Tokens> sequences(6, Tokens(kLength));
  std::vector<Tokens> tables(sequences.size());
  std::vector<Logits> alone;
  std::int32_t next_block = 0;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const std::int32_t common = i == 0 ? 0 : (i < 4 ? kPrefix : kBranch);
    for (std::int32_t at = 0; at < kLength; ++at) {
      const auto place = static_cast<std::size_t>(at);
      sequences[i][place] = at < common ? sequences[0][place] : token(rng);
      if (at % kSize != 0) continue;
      const bool shared = at + kSize <= common;
      tables[i].push_back(shared ? tables[0][place / kSize] : next_block++);
    }
    alone.push_back(ForwardAlone(model.runner.get(), sequences[i]));
  }
  ASSERT_LE(next_block, model.runner->info().num_kv_blocks);
  const auto vocab = static_cast<std::size_t>(model.runner->info().vocab);
  const auto step = [&](std::int32_t at, std::int32_t count, std::size_t first) {
    std::vector<Chunk> chunks;
    for (std::size_t i = first; i < sequences.size(); ++i) {
      chunks.push_back({sequences[i], at, count, tables[i]});
    }
    const Logits logits = RunStep(model.runner.get(), chunks);
    for (std::size_t i = first; i < sequences.size(); ++i) {
      const auto size = static_cast<std::size_t>(count) * vocab;
      ASSERT_TRUE(SameBits(std::span(logits).subspan((i - first) * size, size),
                           std::span(alone[i]).subspan(static_cast<std::size_t>(at) * vocab, size)))
          << "sequence " << i << " at " << at;
    }
  };
  const Chunk whole{sequences[0], 0, kLength, tables[0]};
  RunStep(model.runner.get(), {&whole, 1});  // the only one who computes the prefix
  // The others compute what is theirs alone: from the branch on, then the tails, then as in decode.
  const std::int32_t own = kBranch / kSize * kSize;
  for (std::int32_t at = own; at < kPrefix; at += 65) {
    for (std::size_t i = 4; i < 6; ++i) {
      const Chunk chunk{sequences[i], at, std::min(65, kPrefix - at), tables[i]};
      RunStep(model.runner.get(), {&chunk, 1});
    }
  }
  step(kPrefix, 7, 1);
  for (std::int32_t at = kPrefix + 7; at < kLength && !HasFatalFailure(); ++at) {
    step(at, 1, at % 2 == 0 ? 0 : 1);  // with and without the first, whose values are the same
    step(at, 1, 0);
  }
}

// Not in the macro: a comma inside braces parts its arguments.
std::string TypeName(const ::testing::TestParamInfo<KvDType>& info) {
  constexpr const char* kNames[] = {"F16", "F32", "Q8_0", "Fp8"};
  return kNames[static_cast<std::size_t>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(CacheTypes, BatchInvariance,
                         ::testing::Values(KvDType::kF16, KvDType::kF32, KvDType::kQ8_0,
                                           KvDType::kFp8),
                         TypeName);

}  // namespace
}  // namespace millrace
