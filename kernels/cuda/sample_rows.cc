#include "kernels/cuda/sample_rows.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

namespace millrace::cuda {
namespace {

bool ChangesLogits(const SampleRow& row) {
  return row.params.has_penalties() || !row.logit_bias.empty() || !row.allowed.empty() ||
         !row.banned.empty();
}

// Words that a row's lists take.
std::size_t ListWords(const SampleRow& row) {
  const std::size_t seen = row.params.has_penalties() ? 2 * row.seen.size() : 0;
  return row.allowed.size() + row.banned.size() + seen + 2 * row.logit_bias.size();
}

PassKind KindOf(const SamplerParams& params, std::int32_t vocab) {
  if (params.temperature == 0.0F || params.top_k == 1) return PassKind::kGreedy;
  const bool has_top_k = params.top_k > 0 && params.top_k < static_cast<std::uint32_t>(vocab);
  return has_top_k || params.top_p < 1.0F ? PassKind::kDrawTop : PassKind::kDraw;
}

PackedPass SamplingPass(const SampleRow& row, std::int32_t index, std::int32_t change,
                        std::int32_t vocab) {
  const SamplerParams& params = row.params;
  PackedPass pass = {};
  pass.kind = KindOf(params, vocab);
  pass.row = index;
  pass.change = change;
  pass.maxima = index;
  pass.temperature = params.temperature;
  pass.min_p = params.min_p;
  pass.top_p = params.top_p;
  pass.top_k = params.top_k < static_cast<std::uint32_t>(vocab) ? params.top_k : 0;
  pass.index = row.index;
  pass.position = row.position;
  pass.seed_low = static_cast<std::uint32_t>(params.seed);
  pass.seed_high = static_cast<std::uint32_t>(params.seed >> 32);
  return pass;
}

// `own` is the pass's index.
PackedPass LogprobsPass(const SampleRow& row, const PackedPass& sampling, std::int32_t own) {
  PackedPass pass = {};
  pass.kind = PassKind::kLogprobs;
  pass.row = sampling.row;
  pass.change = -1;
  pass.maxima = sampling.change < 0 ? sampling.maxima : own;
  pass.temperature = 1.0F;
  pass.top_p = 1.0F;
  pass.num_top = std::min(row.num_logprobs, kMaxTopLogprobs);
  return pass;
}

// Appends words to the lists.
class ListWriter {
 public:
  explicit ListWriter(std::byte* lists) : lists_(lists) {}

  PackedList Tokens(std::span<const std::uint32_t> tokens) {
    const PackedList list = {next_, static_cast<std::uint32_t>(tokens.size())};
    for (const std::uint32_t token : tokens) Put(token);
    return list;
  }
  PackedList Seen(std::span<const SeenToken> seen) {
    const PackedList list = {next_, static_cast<std::uint32_t>(seen.size())};
    for (const SeenToken& token : seen) {
      Put(token.token);
      Put(token.output_count);
    }
    return list;
  }
  // Ascending by token, equal ones in their order: so one thread finds all of a token side by side
  // and adds them in the order of the definition.
  PackedList Bias(std::span<const std::pair<std::uint32_t, float>> bias) {
    const auto by_token = [](const auto& a, const auto& b) { return a.first < b.first; };
    if (!std::is_sorted(bias.begin(), bias.end(), by_token)) {
      std::vector<std::pair<std::uint32_t, float>> sorted(bias.begin(), bias.end());
      std::stable_sort(sorted.begin(), sorted.end(), by_token);
      return Bias(sorted);
    }
    const PackedList list = {next_, static_cast<std::uint32_t>(bias.size())};
    for (const auto& [token, value] : bias) {
      Put(token);
      Put(std::bit_cast<std::uint32_t>(value));
    }
    return list;
  }

 private:
  void Put(std::uint32_t word) {
    std::memcpy(lists_ + std::size_t{next_} * sizeof(word), &word, sizeof(word));
    ++next_;
  }

  std::byte* lists_;
  std::uint32_t next_ = 0;
};

PackedChange ChangeOf(const SampleRow& row, std::int32_t index, ListWriter* lists) {
  PackedChange change = {};
  change.row = index;
  change.repetition_penalty = row.params.repetition_penalty;
  change.presence_penalty = row.params.presence_penalty;
  change.frequency_penalty = row.params.frequency_penalty;
  change.allowed = lists->Tokens(row.allowed);
  change.banned = lists->Tokens(row.banned);
  if (row.params.has_penalties()) change.seen = lists->Seen(row.seen);
  change.bias = lists->Bias(row.logit_bias);
  return change;
}

template <typename T>
void PutAt(std::byte* base, std::int32_t index, const T& value) {
  std::memcpy(base + static_cast<std::size_t>(index) * sizeof(T), &value, sizeof(T));
}

}  // namespace

bool SampleShape::Covers(const SampleShape& other) const {
  return rows >= other.rows && passes >= other.passes && changes >= other.changes &&
         sums >= other.sums && searches >= other.searches && logprobs >= other.logprobs;
}

std::size_t PackedSampleBytes(std::span<const SampleRow> rows, std::int32_t max_rows) {
  std::size_t words = 0;
  for (const SampleRow& row : rows) words += ListWords(row);
  return SampleBufferLayoutOf(max_rows).lists + words * sizeof(std::uint32_t);
}

SampleShape PackSampleRows(std::span<const SampleRow> rows, std::int32_t vocab,
                           std::int32_t max_rows, std::span<std::byte> out) {
  const SampleBufferLayout layout = SampleBufferLayoutOf(max_rows);
  std::byte* const passes = out.data() + layout.passes;
  ListWriter lists(out.data() + layout.lists);
  SampleShape shape;
  shape.rows = static_cast<std::int32_t>(rows.size());
  shape.passes = shape.rows;
  for (std::int32_t i = 0; i < shape.rows; ++i) {
    const SampleRow& row = rows[static_cast<std::size_t>(i)];
    std::int32_t change = -1;
    if (ChangesLogits(row)) {
      change = shape.changes++;
      PutAt(out.data() + layout.changes, change, ChangeOf(row, i, &lists));
    }
    const PackedPass pass = SamplingPass(row, i, change, vocab);
    PutAt(passes, i, pass);
    shape.searches |= pass.kind == PassKind::kDrawTop;
    shape.sums |=
        pass.kind == PassKind::kDraw || (pass.kind == PassKind::kDrawTop && pass.top_k == 0);
    if (row.num_logprobs < 0) continue;
    PutAt(passes, shape.passes, LogprobsPass(row, pass, shape.passes));
    ++shape.passes;
    shape.logprobs = true;
    shape.sums = true;
    shape.searches |= row.num_logprobs > 0;
  }
  PutAt(out.data(), 0, PackedCounts{shape.rows, shape.passes, shape.changes, 0});
  return shape;
}

SampledToken UnpackSampled(const SampleResult& result, const SampleRow& row) {
  SampledToken out;
  out.finite = result.finite != 0;
  if (!out.finite) return out;
  out.token = result.token;
  if (row.num_logprobs < 0) return out;
  const double max = result.max;
  const double log_total = std::log(result.total);
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - max - log_total);
  };
  out.logprob = logprob(result.chosen);
  out.rank = static_cast<std::uint32_t>(result.ahead) + 1;
  out.top.reserve(result.num_top);
  for (std::uint32_t i = 0; i < result.num_top; ++i) {
    out.top.push_back({result.top_tokens[i], logprob(result.top_logits[i])});
  }
  return out;
}

}  // namespace millrace::cuda
