// The choice of tokens on the (emulated) GPU against kernels/sampling.cc: the same token, and the
// same bits of every logprob.
#include "kernels/cuda/sampling.h"

#include <algorithm>
#include <bit>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/sample_rows.h"
#include "kernels/sampling.h"
#include "kernels/sampling_weights.h"
#include "tests/cuda/device_array.h"
#include "tests/kernels/float_test_support.h"

namespace millrace::cuda {
namespace {

using millrace::testing::DeviceArray;
using testing::kInfinity;
using testing::kNan;

// A row to sample with what its spans point at.
struct Row {
  std::vector<float> logits;
  SamplerParams params;
  std::uint32_t index = 0;
  std::uint32_t position = 0;
  std::vector<SeenToken> seen;
  std::vector<std::pair<std::uint32_t, float>> bias;
  std::vector<std::uint32_t> allowed;
  std::vector<std::uint32_t> banned;
  std::int32_t num_logprobs = -1;

  SampleRow View() const {
    return {params, index, position, seen, bias, allowed, banned, num_logprobs};
  }
};

std::vector<SampledToken> SampleOnCpu(const std::vector<Row>& rows) {
  std::vector<SampledToken> out;
  SampleScratch scratch;
  out.reserve(rows.size());
  for (const Row& row : rows) out.push_back(SampleToken(row.logits, row.View(), &scratch));
  return out;
}

struct Launched {
  std::int32_t more_rows = 0;    // that the buffers and grids have room for
  std::int32_t row_padding = 0;  // floats between rows: other alignments
  bool whole_shape = false;      // launch every kernel, needed or not
};

// Samples rows of one vocabulary in one launch.
std::vector<SampleResult> ResultsOf(const std::vector<Row>& rows, const Launched& how) {
  const auto vocab = static_cast<std::int32_t>(rows.front().logits.size());
  const auto stride = static_cast<std::size_t>(vocab + how.row_padding);
  const std::int32_t max_rows = static_cast<std::int32_t>(rows.size()) + how.more_rows;
  std::vector<float> logits(stride * rows.size() - static_cast<std::size_t>(how.row_padding), kNan);
  std::vector<SampleRow> views;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::copy(rows[r].logits.begin(), rows[r].logits.end(),
              logits.begin() + static_cast<std::ptrdiff_t>(r * stride));
    views.push_back(rows[r].View());
  }
  std::vector<std::byte> packed(PackedSampleBytes(views, max_rows));
  SampleParams params;
  params.shape = PackSampleRows(views, vocab, max_rows, packed);
  if (how.whole_shape) {
    params.shape = {max_rows, 2 * max_rows, max_rows, true, true, true};
  }
  DeviceArray<float> device_logits(logits);
  DeviceArray<std::byte> device_packed(packed);
  DeviceArray<std::byte> scratch(SampleScratchBytes(max_rows, vocab));
  DeviceArray<SampleResult> results(rows.size());
  DeviceArray<std::int32_t> tokens(rows.size());
  params.logits = device_logits.data();
  params.logits_stride = static_cast<std::int64_t>(stride);
  params.vocab = vocab;
  params.packed = device_packed.data();
  params.max_rows = max_rows;
  params.scratch = scratch.data();
  params.results = results.data();
  params.tokens = tokens.data();
  params.chained = true;
  EXPECT_EQ(LaunchSample(params, nullptr), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<SampleResult> read = results.Read();
  const std::vector<std::int32_t> fed = tokens.Read();
  for (std::size_t r = 0; r < rows.size(); ++r) {
    EXPECT_EQ(static_cast<std::uint32_t>(fed[r]), read[r].token);
  }
  // The logits stay as they were.
  testing::ExpectSameBits(device_logits.Read(), logits);
  return read;
}

std::vector<SampledToken> SampleOnGpu(const std::vector<Row>& rows, const Launched& how = {}) {
  const std::vector<SampleResult> results = ResultsOf(rows, how);
  std::vector<SampledToken> out;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    out.push_back(UnpackSampled(results[r], rows[r].View()));
  }
  return out;
}

void ExpectSameSamples(const std::vector<SampledToken>& gpu, const std::vector<SampledToken>& cpu) {
  const auto bits = [](float x) { return std::bit_cast<std::uint32_t>(x); };
  ASSERT_EQ(gpu.size(), cpu.size());
  for (std::size_t r = 0; r < cpu.size(); ++r) {
    SCOPED_TRACE("row " + std::to_string(r));
    EXPECT_EQ(gpu[r].finite, cpu[r].finite);
    EXPECT_EQ(gpu[r].token, cpu[r].token);
    EXPECT_EQ(gpu[r].rank, cpu[r].rank);
    EXPECT_EQ(bits(gpu[r].logprob), bits(cpu[r].logprob)) << gpu[r].logprob;
    ASSERT_EQ(gpu[r].top.size(), cpu[r].top.size());
    for (std::size_t i = 0; i < cpu[r].top.size(); ++i) {
      EXPECT_EQ(gpu[r].top[i].token, cpu[r].top[i].token) << i;
      EXPECT_EQ(bits(gpu[r].top[i].logprob), bits(cpu[r].top[i].logprob)) << i;
    }
  }
}

void ExpectTheTokensOfTheCpu(const std::vector<Row>& rows, const Launched& how = {}) {
  ExpectSameSamples(SampleOnGpu(rows, how), SampleOnCpu(rows));
}

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : random_(seed) {}
  bool Chance(int percent) { return static_cast<int>(random_() % 100) < percent; }
  std::uint32_t Below(std::size_t n) { return static_cast<std::uint32_t>(random_() % n); }
  float Unit() { return std::uniform_real_distribution<float>(0.01F, 1.0F)(random_); }
  std::mt19937_64* random() { return &random_; }

 private:
  std::mt19937_64 random_;
};

// Logits of many kinds: smooth, with many ties, flat, peaked.
std::vector<float> RandomLogits(std::size_t vocab, Dice* dice) {
  std::vector<float> logits = testing::RandomFloats(vocab, dice->random(), 3);
  switch (dice->Below(5)) {
    case 0:
      for (float& x : logits) x = std::round(x);
      break;
    case 1:
      for (float& x : logits) x *= 0.001F;
      break;
    case 2:
      for (float& x : logits) x *= 10.0F;
      break;
    default:
      break;
  }
  return logits;
}

Row RandomRow(std::size_t vocab, Dice* dice) {
  Row row;
  row.logits = RandomLogits(vocab, dice);
  row.index = dice->Below(3);
  row.position = dice->Below(1000);
  SamplerParams& params = row.params;
  params.temperature = dice->Chance(15) ? 0.0F : 0.2F + 2 * dice->Unit();
  params.seed = (*dice->random())();
  if (dice->Chance(40)) params.top_k = 1 + dice->Below(vocab + 2);
  if (dice->Chance(40)) params.top_p = dice->Unit();
  if (dice->Chance(40)) params.min_p = dice->Unit() / 4;
  if (dice->Chance(30)) {
    params.repetition_penalty = 0.5F + dice->Unit();
    params.presence_penalty = dice->Unit() - 0.5F;
    params.frequency_penalty = dice->Unit() - 0.5F;
  }
  for (std::uint32_t token = 0; token < vocab; token += 1 + dice->Below(9)) {
    row.seen.push_back({token, dice->Below(4)});
  }
  if (dice->Chance(30)) {
    for (int i = 0; i < 5; ++i) row.bias.push_back({dice->Below(vocab), 4 * dice->Unit()});
  }
  if (dice->Chance(20)) {
    for (std::uint32_t token = 0; token < vocab; token += 1 + dice->Below(5)) {
      row.allowed.push_back(token);
    }
  }
  if (dice->Chance(20)) row.banned = {dice->Below(vocab), dice->Below(vocab + 3)};
  if (dice->Chance(40)) row.num_logprobs = static_cast<std::int32_t>(dice->Below(21));
  return row;
}

TEST(CudaSampling, ChoosesAsTheCpuWhateverIsAskedFor) {
  const std::uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Dice dice(seed);
  for (int round = 0; round < 30; ++round) {
    const std::size_t vocab = round < 24 ? 1 + dice.Below(1500) : 2000 + dice.Below(5000);
    SCOPED_TRACE("round " + std::to_string(round) + ", vocabulary " + std::to_string(vocab));
    std::vector<Row> rows;
    for (int r = 0; r < 8; ++r) rows.push_back(RandomRow(vocab, &dice));
    ExpectTheTokensOfTheCpu(rows);
    if (HasFailure()) return;
  }
}

// The sizes at which something begins or ends: lanes, warps, groups, slices, chunks.
TEST(CudaSampling, TakesAnyVocabularyAndAlignment) {
  Dice dice(2);
  for (const std::size_t vocab :
       {1, 2, 7, 8, 9, 31, 33, 127, 128, 129, 511, 512, 513, 1027, 2047, 2048, 2049, 4097}) {
    SCOPED_TRACE(vocab);
    std::vector<Row> rows;
    for (int r = 0; r < 5; ++r) rows.push_back(RandomRow(vocab, &dice));
    rows[0].params = {};  // a plain draw with logprobs
    rows[0].num_logprobs = 3;
    ExpectTheTokensOfTheCpu(rows, {0, static_cast<std::int32_t>(vocab % 3)});
  }
}

// As language models give them: a few likely tokens in a long tail. One launch of all that is
// usual, at the vocabulary of Qwen3.
TEST(CudaSampling, ChoosesAsTheCpuFromAWholeVocabulary) {
  constexpr std::size_t kVocab = 151'936;
  Dice dice(3);
  std::vector<float> logits = testing::RandomFloats(kVocab, dice.random(), 2);
  for (int i = 0; i < 40; ++i) logits[dice.Below(kVocab)] = 12 + 4 * dice.Unit();
  std::vector<Row> rows(6);
  for (Row& row : rows) {
    row.logits = logits;
    row.params.seed = (*dice.random())();
  }
  rows[0].params.temperature = 0;
  rows[0].num_logprobs = 20;
  rows[2].params = {.temperature = 0.7F, .top_k = 20, .top_p = 0.8F, .seed = 5};
  rows[3].params = {.temperature = 0.6F, .top_p = 0.95F, .seed = 6};
  rows[3].num_logprobs = 5;
  rows[4].params = {.temperature = 1.0F, .min_p = 0.05F, .seed = 7};
  rows[5].params = {.temperature = 1.5F, .top_k = 50, .repetition_penalty = 1.1F, .seed = 8};
  for (std::uint32_t token = 0; token < kVocab; token += 97) rows[5].seen.push_back({token, 1});
  ExpectTheTokensOfTheCpu(rows);
}

// Draws at many places of the unit interval, from one row of logits: each rounds somewhere else.
TEST(CudaSampling, DrawsAsTheCpuAtEveryPosition) {
  Dice dice(4);
  const std::vector<float> logits = testing::RandomFloats(3000, dice.random(), 1);
  const SamplerParams kinds[] = {{.temperature = 1.0F},
                                 {.temperature = 1.3F, .min_p = 0.02F},
                                 {.temperature = 0.9F, .top_k = 100},
                                 {.temperature = 0.9F, .top_p = 0.5F},
                                 {.temperature = 1.1F, .top_k = 700, .top_p = 0.9F}};
  for (const SamplerParams& params : kinds) {
    std::vector<Row> rows(24);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      rows[r].logits = logits;
      rows[r].params = params;
      rows[r].position = static_cast<std::uint32_t>(r);
    }
    ExpectTheTokensOfTheCpu(rows);
  }
}

// Rows that no block can settle among its candidates are sorted as a whole.
TEST(CudaSampling, SortsWholeRowsWhereFewCandidatesDoNotDo) {
  constexpr std::size_t kVocab = 9001;
  Dice dice(5);
  std::vector<Row> rows(9);
  for (Row& row : rows) {
    row.logits = testing::RandomFloats(kVocab, dice.random(), 0.5F);
    row.params.seed = (*dice.random())();
  }
  rows[0].params.top_p = 0.9F;  // thousands in the nucleus
  rows[1].params.top_k = 5000;
  rows[2].params.top_k = 5000;
  rows[2].params.top_p = 0.97F;
  rows[2].params.min_p = 0.2F;
  rows[3].logits.assign(kVocab, 1.0F);  // all equal: the lowest ids are the best
  rows[3].params.top_k = 10;
  rows[3].num_logprobs = 20;
  rows[4].logits.assign(kVocab, -0.0F);
  for (std::size_t i = 0; i < kVocab; i += 2) rows[4].logits[i] = 0.0F;
  rows[4].params.top_p = 0.4F;
  rows[4].num_logprobs = 7;
  rows[5].params.top_p = 0.999999F;
  rows[5].params.min_p = 0.3F;
  for (std::uint32_t token = 1; token < kVocab; token += 2) rows[5].allowed.push_back(token);
  rows[6].params.temperature = 0;
  rows[6].logits.assign(kVocab, -3.0F);
  rows[6].num_logprobs = 20;
  rows[7].params.top_k = kVocab - 1;
  rows[7].params.temperature = 3;
  rows[8].params.top_k = 8999;  // more than is allowed
  rows[8].params.top_p = 0.5F;
  rows[8].allowed = {9000, 3, 17, 4};
  ExpectTheTokensOfTheCpu(rows);
}

// All candidates in few groups, or exactly as many as fit, or one more.
TEST(CudaSampling, FindsItsCandidatesWhereverTheyStand) {
  constexpr std::size_t kVocab = 4000;
  for (const std::size_t best : {1, 20, 129, 2047, 2048, 2049, 2500}) {
    SCOPED_TRACE(best);
    Dice dice(best);
    std::vector<Row> rows(3);
    for (Row& row : rows) {
      row.logits = testing::RandomFloats(kVocab, dice.random(), 0.1F);
      for (std::size_t i = 0; i < best; ++i) row.logits[1000 + i] += 20;
      row.params.seed = (*dice.random())();
    }
    rows[0].params.top_k = 20;
    rows[1].params.top_k = static_cast<std::uint32_t>(best) + 1;
    rows[2].params.top_p = 0.99F;
    ExpectTheTokensOfTheCpu(rows);
  }
}

TEST(CudaSampling, SaysWhichRowsHaveNothingToDrawAndSparesTheOthers) {
  Dice dice(6);
  constexpr std::size_t kVocab = 2500;
  std::vector<Row> rows(10);
  for (Row& row : rows) {
    row.logits = testing::RandomFloats(kVocab, dice.random(), 2);
    row.num_logprobs = 2;
  }
  rows[0].logits[2499] = kNan;
  rows[1].logits[0] = kInfinity;
  rows[2].logits[1234] = -kInfinity;
  rows[2].params.temperature = 0;
  rows[3].banned = {5};
  rows[3].allowed = {5};
  rows[4].allowed = {99'999};  // outside the vocabulary
  rows[5].logits[7] = 3e38F;   // driven to infinity by a penalty
  rows[5].params.repetition_penalty = 0.1F;
  rows[5].seen = {{7, 1}};
  rows[6].logits[9] = kNan;  // a fault in a row that is changed, where it is masked
  rows[6].banned = {9};
  rows[7].logits[9] = kNan;
  rows[7].params.top_k = 5;
  const std::vector<SampledToken> gpu = SampleOnGpu(rows);
  for (std::size_t r = 0; r < 8; ++r) EXPECT_FALSE(gpu[r].finite) << r;
  EXPECT_TRUE(gpu[8].finite);
  ExpectSameSamples(gpu, SampleOnCpu(rows));
}

TEST(CudaSampling, AddsBiasesOfOneTokenInTheirOrder) {
  std::vector<Row> rows(2);
  for (Row& row : rows) {
    row.logits = {0.5F, 0.25F, 0.1F};
    row.params.temperature = 0;
    row.num_logprobs = 1;
  }
  // In this order the small one is lost in the large one; in another token 1 would win.
  rows[0].bias = {{1, 1e8F}, {0, 0.5F}, {1, 0.4F}, {1, -1e8F}};
  rows[1].bias = {{1, 1e8F}, {1, -1e8F}, {0, 0.5F}, {1, 4.0F}};
  EXPECT_EQ(SampleOnGpu(rows)[0].token, 0U);
  EXPECT_EQ(SampleOnGpu(rows)[1].token, 1U);
  ExpectTheTokensOfTheCpu(rows);
}

// Each of these would choose another token if a change were lost or came too early. The lists are
// so long that different threads write the same token.
TEST(CudaSampling, ChangesLogitsInTheOrderOfTheDefinition) {
  constexpr std::uint32_t kVocab = 1500;
  std::vector<Row> rows(4);
  for (Row& row : rows) {
    row.params.temperature = 0;
    for (std::uint32_t token = 0; token < kVocab; ++token) {
      row.logits.push_back(static_cast<float>(token % 1000) * 0.25F + 1.0F);
    }
  }
  for (std::uint32_t token = 0; token < kVocab; ++token) {
    rows[0].allowed.push_back(token);
    if (token % 1000 > 700) rows[0].banned.push_back(token);
    rows[1].allowed.push_back(kVocab - 1 - token);
    if (token % 1000 > 600) rows[1].seen.push_back({token, token % 3});
    if (token % 1000 > 500) rows[2].seen.push_back({token, 1 + token % 2});
    if (token % 3 != 0) rows[2].bias.push_back({token, static_cast<float>(token % 7)});
    rows[3].bias.push_back({token, static_cast<float>(token % 5)});
    if (token % 1000 > 300) rows[3].banned.push_back(kVocab - 1 - token);
  }
  rows[1].params.repetition_penalty = 2.0F;
  rows[1].params.frequency_penalty = 0.5F;
  rows[2].params.repetition_penalty = 1.75F;
  rows[2].params.presence_penalty = 0.125F;
  for (int repeat = 0; repeat < 10; ++repeat) ExpectTheTokensOfTheCpu(rows);
}

// The sum of all weights, in the lanes and slices that kernels/sampling_weights.h defines. A
// logprob would not show its last bits.
double SumByDefinition(const std::vector<float>& logits) {
  const SampleWeights weights = {*std::max_element(logits.begin(), logits.end()), 1.0};
  double total = 0;
  for (std::size_t begin = 0; begin < logits.size(); begin += kSampleSlice) {
    const std::size_t n = std::min(kSampleSlice, logits.size() - begin);
    double lanes[kSampleLanes] = {};
    for (std::size_t i = 0; i < n; ++i) {
      const bool whole = i < n / kSampleLanes * kSampleLanes;
      lanes[whole ? i % kSampleLanes : 0] += weights(logits[begin + i]);
    }
    double sum = 0;
    for (const double lane : lanes) sum += lane;
    total += sum;
  }
  return total;
}

TEST(CudaSampling, SumsWeightsInTheirLanesAndSlices) {
  Dice dice(9);
  for (const std::size_t vocab : {5, 511, 512, 515, 700, 1023, 1533, 5000}) {
    SCOPED_TRACE(vocab);
    std::vector<Row> rows(8);
    for (Row& row : rows) {
      row.logits = testing::RandomFloats(vocab, dice.random(), 2);
      row.params.temperature = 0;
      row.num_logprobs = 0;
    }
    const std::vector<SampleResult> results = ResultsOf(rows, {});
    for (std::size_t r = 0; r < rows.size(); ++r) {
      EXPECT_EQ(results[r].total, SumByDefinition(rows[r].logits)) << r;
    }
  }
}

// Candidates that just fit a block, and one more; with min_p 1 only the best, and its equals.
TEST(CudaSampling, DrawsFromAsManyCandidatesAsABlockHolds) {
  Dice dice(10);
  for (const std::size_t vocab : {2047, 2048, 2049, 2050}) {
    SCOPED_TRACE(vocab);
    std::vector<Row> rows(9);
    for (Row& row : rows) {
      row.logits = testing::RandomFloats(vocab, dice.random(), 1);
      row.params.seed = (*dice.random())();
    }
    rows[0].params.top_k = 1500;
    rows[1].params.top_p = 0.9F;
    rows[2].params.top_k = 50;
    rows[2].params.min_p = 1.0F;
    rows[2].logits[17] = rows[2].logits[1000] = 9.0F;
    for (std::size_t r = 3; r < rows.size(); ++r) {  // one that is lost moves all behind it
      rows[r].logits.assign(vocab, 1.0F);
      rows[r].params.top_k = static_cast<std::uint32_t>(vocab - 1);
    }
    ExpectTheTokensOfTheCpu(rows);
  }
}

// Equal weights, so that the sums are whole numbers and meet theirs exactly; one token more or less
// would move most draws.
TEST(CudaSampling, KeepsTheShortestPrefixThatReachesTopP) {
  for (const std::size_t vocab : {100, 3000}) {  // among candidates, and of a sorted row
    std::vector<Row> rows(16);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      rows[r].logits.assign(vocab, 2.0F);
      rows[r].params.top_p = 0.5F;
      rows[r].position = static_cast<std::uint32_t>(r);
      if (r % 2 == 0) rows[r].params.top_k = static_cast<std::uint32_t>(vocab / 5 * 4);
    }
    ExpectTheTokensOfTheCpu(rows);
  }
}

// A vocabulary of so many groups that candidates are not all tokens, and a nucleus that holds more
// than the candidates.
TEST(CudaSampling, LooksFurtherWhereTheNucleusIsLargerThanItsCandidates) {
  constexpr std::size_t kVocab = 70'001;
  Dice dice(11);
  std::vector<Row> rows(2);
  for (Row& row : rows) {
    row.logits = testing::RandomFloats(kVocab, dice.random(), 1);
    row.params.seed = (*dice.random())();
    row.params.top_p = 0.3F;
  }
  rows[1].params.min_p = 0.01F;
  rows[1].params.temperature = 1.2F;
  ExpectTheTokensOfTheCpu(rows);
}

// A captured graph has the grids of its bucket; what it is given may be smaller and ask for less.
TEST(CudaSampling, SamplesFewerRowsThanItsKernelsAreLaunchedFor) {
  Dice dice(8);
  for (int round = 0; round < 5; ++round) {
    std::vector<Row> rows;
    for (int r = 0; r < 3; ++r) rows.push_back(RandomRow(700, &dice));
    if (round == 0) {
      for (Row& row : rows) row = {.logits = row.logits, .params = {.temperature = 0}};
    }
    ExpectTheTokensOfTheCpu(rows, {.more_rows = 5, .whole_shape = true});
  }
}

TEST(CudaSampling, KnowsTheShapeThatServesAStep) {
  Row plain;
  Row rich;
  rich.params.top_p = 0.5F;
  rich.banned = {1};
  rich.num_logprobs = 2;
  const auto shape_of = [](const std::vector<SampleRow>& rows) {
    std::vector<std::byte> packed(PackedSampleBytes(rows, 4));
    return PackSampleRows(rows, 100, 4, packed);
  };
  plain.params.temperature = 0;
  const SampleShape small = shape_of({plain.View(), plain.View()});
  const SampleShape large = shape_of({plain.View(), rich.View()});
  EXPECT_EQ(small.rows, 2);
  EXPECT_EQ(small.passes, 2);
  EXPECT_FALSE(small.sums || small.searches || small.logprobs);
  EXPECT_EQ(large.passes, 3);
  EXPECT_EQ(large.changes, 1);
  EXPECT_TRUE(large.sums && large.searches && large.logprobs);
  EXPECT_TRUE(large.Covers(small));
  EXPECT_FALSE(small.Covers(large));
}

TEST(CudaSampling, GivesTokensToTheNextStep) {
  DeviceArray<std::int32_t> sampled(std::vector<std::int32_t>{70, 71, 72});
  DeviceArray<std::int32_t> token_ids(std::vector<std::int32_t>{1, 2, 3, 4, 5});
  DeviceArray<TakenToken> taken(std::vector<TakenToken>{{4, 0}, {1, 2}, {0, 1}, {2, 0}});
  DeviceArray<std::int32_t> count(std::vector<std::int32_t>{3});
  TakeTokensParams params;
  params.taken = taken.data();
  params.count = count.data();
  params.max_count = 64;
  params.sampled = sampled.data();
  params.token_ids = token_ids.data();
  params.chained = true;
  ASSERT_EQ(LaunchTakeTokens(params, nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(token_ids.Read(), (std::vector<std::int32_t>{71, 72, 3, 4, 70}));
}

TEST(CudaSampling, RefusesAVocabularyThatItCannotHold) {
  SampleParams params;
  params.vocab = (1 << 19) + 1;
  params.shape.rows = 1;
  EXPECT_EQ(LaunchSample(params, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace millrace::cuda
