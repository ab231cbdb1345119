// How the rows to sample of a step travel to the GPU, as one flat buffer in one copy, and how what
// was sampled comes back. The host packs and unpacks; the kernels of kernels/cuda/sampling.h read
// the same structs.
//
// The buffer: PackedCounts | PackedPass [2 * max_rows] | PackedChange [max_rows] | lists. All but
// the lists lie at the same place in every step, so that a captured graph finds them.
//
// Values and pure functions on the caller's memory; thread-safe.
#ifndef MILLRACE_KERNELS_CUDA_SAMPLE_ROWS_H_
#define MILLRACE_KERNELS_CUDA_SAMPLE_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/sampling.h"

namespace millrace::cuda {

// Most tokens beside the sampled one whose logprobs a row may ask for (runtime/sampling's limit).
inline constexpr std::int32_t kMaxTopLogprobs = 20;

// A pass over one row of logits for one purpose.
enum class PassKind : std::int32_t {
  kGreedy,    // the best token
  kDraw,      // a draw from the whole vocabulary
  kDrawTop,   // a draw from the best top_k, the nucleus top_p, or both
  kLogprobs,  // log of the sum, and the best few, of the raw logits
};

struct PackedPass {
  PassKind kind;
  std::int32_t row;     // of the logits
  std::int32_t change;  // reads this changed copy of the row; -1: the logits as they are
  // The pass that looks at the same numbers first, whose maxima serve this one; its own index if
  // there is none.
  std::int32_t maxima;
  float temperature;     // of the weights: 1 for kLogprobs
  float min_p;           // weights below count as 0; 0 for kLogprobs
  float top_p;           // 1: off
  std::uint32_t top_k;   // 0: off
  std::int32_t num_top;  // kLogprobs: how many of the best are wanted
  std::uint32_t index;   // of the draw
  std::uint32_t position;
  std::uint32_t seed_low;
  std::uint32_t seed_high;
};

// `count` entries from word `begin` of the lists.
struct PackedList {
  std::uint32_t begin;
  std::uint32_t count;
};

// What changes a row's logits before it is sampled, in this order (kernels/sampling.h).
struct PackedChange {
  std::int32_t row;
  float repetition_penalty;
  float presence_penalty;
  float frequency_penalty;
  PackedList allowed;  // a word each: a token; not empty: all others are masked
  PackedList banned;   // the same
  PackedList seen;     // two words each: token, times in the output; empty without penalties
  PackedList bias;     // two words each: token, bits of the float; ascending by token
};

// Pass r < rows chooses the token of row r; those behind are of kind kLogprobs.
struct PackedCounts {
  std::int32_t rows;
  std::int32_t passes;
  std::int32_t changes;
  std::int32_t unused;
};

// What a step's rows ask for: which kernels are needed and how large their grids are. A graph
// captured for a shape serves every step whose own shape it covers.
struct SampleShape {
  std::int32_t rows = 0;
  std::int32_t passes = 0;
  std::int32_t changes = 0;
  bool sums = false;      // a pass needs sums over the vocabulary
  bool searches = false;  // a pass needs the best tokens in order
  bool logprobs = false;

  bool Covers(const SampleShape& other) const;
};

struct SampleBufferLayout {
  std::size_t passes = 0;  // byte offsets; PackedCounts lie at 0
  std::size_t changes = 0;
  std::size_t lists = 0;
};
constexpr SampleBufferLayout SampleBufferLayoutOf(std::int32_t max_rows) {
  const auto rows = static_cast<std::size_t>(max_rows);
  SampleBufferLayout layout;
  layout.passes = sizeof(PackedCounts);
  layout.changes = layout.passes + 2 * rows * sizeof(PackedPass);
  layout.lists = layout.changes + rows * sizeof(PackedChange);
  return layout;
}

// Bytes that `rows` need in the buffer, lists included.
std::size_t PackedSampleBytes(std::span<const SampleRow> rows, std::int32_t max_rows);

// Fills the first PackedSampleBytes of `out`, which is aligned to 4. REQUIRES: they fit; at most
// max_rows rows; each row's seen tokens are distinct (kernels/sampling.h).
SampleShape PackSampleRows(std::span<const SampleRow> rows, std::int32_t vocab,
                           std::int32_t max_rows, std::span<std::byte> out);

// What the kernels write for each row. The host takes the logarithm, as the CPU's sampling does:
// then the logprobs have its bits whatever libm it has, and the device needs no logarithm.
struct SampleResult {
  std::uint32_t token;
  std::uint32_t finite;  // 0: as SampledToken has it; token is 0
  // Of the raw logits, where the row asked for logprobs.
  std::int32_t ahead;  // tokens that come before the sampled one
  float chosen;        // its logit
  float max;
  std::uint32_t num_top;
  double total;  // sum of exp(logit - max)
  std::uint32_t top_tokens[kMaxTopLogprobs];
  float top_logits[kMaxTopLogprobs];
};
static_assert(sizeof(SampleResult) == 192);

SampledToken UnpackSampled(const SampleResult& result, const SampleRow& row);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_SAMPLE_ROWS_H_
