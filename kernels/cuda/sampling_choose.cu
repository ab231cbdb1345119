// From maxima and sums to tokens: one block a pass chooses; passes whose candidates do not fit it
// are sorted as whole rows.
#include <cstdint>

#include "kernels/cuda/counting_sort.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling_device.h"

namespace millrace::cuda {
namespace {

constexpr int kChooseThreads = 512;
constexpr int kCandidates = 2048;  // that a block can sort in its shared memory: 16 KiB of them
// Where only the nucleus limits a draw, it is looked for among the groups with the best maxima, so
// many of them: few nuclei of language models are larger.
constexpr int kNucleusGroups = 512;
constexpr int kDigits = 256;  // of eight bits

struct ChooseShared {
  std::uint64_t ranked[kCandidates];
  union {
    double weights[kCandidates];
    int groups[2 * kCandidates];  // that hold candidates
  };
  int digits[kDigits];
  int count;
  int kept;
  std::uint32_t key;
  std::uint32_t token;
  double target;
};
static_assert(SlicesOf(kMaxSampleVocab) <= kCandidates, "weights hold the sums of all slices");
static_assert(GroupsOf(kMaxSampleVocab) <= 2 * kCandidates, "groups hold the numbers of all");

__device__ int Thread() { return static_cast<int>(threadIdx.x); }

__device__ bool RowIsFinite(const SampleStep& step, int row) {
  const int chunks = ChunksOf(step.vocab);
  const std::int32_t* faults = step.faults + std::int64_t{row} * chunks;
  bool fault = false;
  for (int i = Thread() % kWarpSize; i < chunks; i += kWarpSize) fault |= faults[i] != 0;
  return Ballot(fault) == 0;
}

// One thread.
__device__ void WriteToken(const SampleStep& step, int row, bool finite, std::uint32_t token) {
  SampleResult& result = step.results[row];
  result.token = finite ? token : 0;
  result.finite = finite ? 1 : 0;
  result.ahead = 0;
  step.tokens[row] = static_cast<std::int32_t>(result.token);
}

__device__ double UniformOf(const PackedPass& pass) {
  const std::uint64_t seed = (std::uint64_t{pass.seed_high} << 32) | pass.seed_low;
  return UniformNumber(seed, pass.index, pass.position);
}

// ---- One thread's walks through weights --------------------------------------------------------

__device__ double SumInOrder(const double* weights, int n) {
  double sum = 0.0;
#pragma unroll 8
  for (int i = 0; i < n; ++i) sum = sum + weights[i];
  return sum;
}

// How many of the n weights the nucleus holds: the shortest prefix whose sum reaches `wanted`;
// n + 1 if none does.
__device__ int NucleusSize(const double* weights, int n, double wanted) {
  double sum = 0.0;
  for (int i = 0; i < n; ++i) {
    sum = sum + weights[i];
    if (sum >= wanted) return i + 1;
  }
  return n + 1;
}

// The first place whose running sum exceeds `target`; -1 if none does.
__device__ int FirstAbove(const double* weights, int n, double target) {
  double sum = 0.0;
  for (int i = 0; i < n; ++i) {
    sum = sum + weights[i];
    if (sum > target) return i;
  }
  return -1;
}

// The same for a slice; for what rounding leaves over, the last of positive weight.
__device__ int WalkTo(const double* weights, int n, double target) {
  const int found = FirstAbove(weights, n, target);
  if (found >= 0) return found;
  int last = 0;
  for (int i = 0; i < n; ++i) last = weights[i] != 0.0 ? i : last;
  return last;
}

// ---- Drawing from the whole vocabulary ---------------------------------------------------------

// Loads the sums of the pass's slices into shared.weights; ends with a barrier.
__device__ void LoadSums(const SampleStep& step, int index, ChooseShared* shared) {
  const int slices = SlicesOf(step.vocab);
  const double* sums = step.sums + std::int64_t{index} * slices;
  for (int i = Thread(); i < slices; i += kChooseThreads) shared->weights[i] = sums[i];
  SyncBlock();
}

// The slice that the draw falls into, or the last of positive weight before rounding ends the
// search; leaves what is left of the target in `target`.
__device__ int SliceOfDraw(const double* sums, int slices, double* target) {
  int found = 0;
  double found_target = *target;
  double left = *target;
  for (int i = 0; i < slices; ++i) {
    const double sum = sums[i];
    if (sum > 0.0) {
      found = i;
      found_target = left;
    }
    if (sum > left) break;
    left = left - sum;
  }
  *target = found_target;
  return found;
}

__device__ void DrawFromAll(const SampleStep& step, const PackedPass& pass, int index,
                            const SampleWeights& weights, ChooseShared* shared) {
  constexpr int kSlice = static_cast<int>(kSampleSlice);
  LoadSums(step, index, shared);
  if (Thread() == 0) {
    const int slices = SlicesOf(step.vocab);
    shared->target = UniformOf(pass) * SumInOrder(shared->weights, slices);
    shared->kept = SliceOfDraw(shared->weights, slices, &shared->target);
  }
  SyncBlock();
  const int begin = shared->kept * kSlice;
  const int n = step.vocab - begin < kSlice ? step.vocab - begin : kSlice;
  const float* row = RowOfPass(step, pass) + begin;
  const double least = LeastWeight(pass);
  for (int i = Thread(); i < n; i += kChooseThreads) {
    const double weight = weights(row[i]);
    shared->weights[i] = weight >= least ? weight : 0.0;
  }
  SyncBlock();
  if (Thread() != 0) return;
  const int at = WalkTo(shared->weights, n, shared->target);
  WriteToken(step, pass.row, true, static_cast<std::uint32_t>(begin + at));
}

// ---- The best tokens ---------------------------------------------------------------------------

// The digit of the left-th greatest key, from how many keys have each digit: a warp, eight digits a
// thread. Leaves the key so far in shared.key and which of those with that digit it is in
// shared.count.
__device__ void FindDigit(std::uint32_t found, int shift, int left, ChooseShared* shared) {
  constexpr int kDigitsOfLane = kDigits / kWarpSize;
  const int lane = Thread() % kWarpSize;
  const int highest = kDigits - 1 - kDigitsOfLane * lane;
  int own = 0;
  for (int i = 0; i < kDigitsOfLane; ++i) own += shared->digits[highest - i];
  int sum = own;  // and of all greater digits
  for (int apart = 1; apart < kWarpSize; apart *= 2) {
    const int greater = Shuffle(sum, (lane - apart) & (kWarpSize - 1));
    if (lane >= apart) sum += greater;
  }
  int rest = left - (sum - own);
  if (rest <= 0 || rest > own) return;  // all lanes but one
  int digit = highest;
  for (; shared->digits[digit] < rest; --digit) rest -= shared->digits[digit];
  shared->key = found | (static_cast<std::uint32_t>(digit) << shift);
  shared->count = rest;
}

// The k-th greatest of n keys, digit by digit from the highest. REQUIRES: 1 <= k <= n. All threads
// get it.
__device__ std::uint32_t KthGreatest(const std::uint32_t* keys, int n, int k,
                                     ChooseShared* shared) {
  std::uint32_t found = 0;
  int left = k;  // among those that begin with the digits found
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = Thread(); i < kDigits; i += kChooseThreads) shared->digits[i] = 0;
    SyncBlock();
    const std::uint32_t above = shift == 24 ? 0U : ~0U << (shift + 8);
    for (int i = Thread(); i < n; i += kChooseThreads) {
      if ((keys[i] & above) != found) continue;
      AtomicAdd(shared->digits + ((keys[i] >> shift) & (kDigits - 1)), 1);
    }
    SyncBlock();
    if (Thread() < kWarpSize) FindDigit(found, shift, left, shared);
    SyncBlock();
    found = shared->key;
    left = shared->count;
  }
  return found;
}

// Writes the groups whose maximum is at least `least` into shared.groups, in any order, and returns
// how many there are; ends with a barrier.
__device__ int ListGroups(const std::uint32_t* keys, int groups, std::uint32_t least,
                          ChooseShared* shared) {
  if (Thread() == 0) shared->count = 0;
  SyncBlock();
  for (int g = Thread(); g < groups; g += kChooseThreads) {
    if (keys[g] >= least) shared->groups[AtomicAdd(&shared->count, 1)] = g;
  }
  SyncBlock();
  const int count = shared->count;
  SyncBlock();
  return count;
}

// Collects all tokens whose key is at least `least` into shared.ranked, in any order, and returns
// how many there are; beyond kCandidates they are counted only. All threads get it.
__device__ int Collect(const SampleStep& step, const PackedPass& pass, std::uint32_t least,
                       ChooseShared* shared) {
  constexpr int kAhead = 4;  // groups that a warp asks for at once
  constexpr int kEach = kGroupTokens / kWarpSize;
  constexpr int kWarps = kChooseThreads / kWarpSize;
  const int groups = GroupsOf(step.vocab);
  const float* row = RowOfPass(step, pass);
  const int count =
      ListGroups(step.groups + std::int64_t{pass.maxima} * groups, groups, least, shared);
  if (Thread() == 0) shared->count = 0;
  SyncBlock();
  const int warp = Thread() / kWarpSize;
  const int lane = Thread() % kWarpSize;
  for (int first = kAhead * warp; first < count; first += kAhead * kWarps) {
    float logits[kAhead][kEach];
    int token[kAhead];
#pragma unroll
    for (int g = 0; g < kAhead; ++g) {
      const int group = first + g < count ? shared->groups[first + g] : groups;
      token[g] = group * kGroupTokens + lane;
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const int at = token[g] + i * kWarpSize;
        logits[g][i] = at < step.vocab ? row[at] : BitsFloat(0xFF800000U);  // minus infinity
      }
    }
#pragma unroll
    for (int g = 0; g < kAhead; ++g) {
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const std::uint32_t key = KeyOf(logits[g][i]);
        if (key < least) continue;
        const int at = AtomicAdd(&shared->count, 1);
        if (at >= kCandidates) continue;
        shared->ranked[at] = Ranked(key, static_cast<std::uint32_t>(token[g] + i * kWarpSize));
      }
    }
  }
  SyncBlock();
  return shared->count;
}

// Sorts values[0 .. n), which are all different and none 0, descending; ends with a barrier.
// Bitonic, filled up with zeros to a power of two.
__device__ void SortDescending(std::uint64_t* values, int n) {
  int size = 2;
  while (size < n) size *= 2;
  for (int i = n + Thread(); i < size; i += kChooseThreads) values[i] = 0;
  SyncBlock();
  for (int run = 2; run <= size; run *= 2) {
    for (int apart = run / 2; apart > 0; apart /= 2) {
      for (int pair = Thread(); pair < size / 2; pair += kChooseThreads) {
        const int below = pair & (apart - 1);
        const int low = 2 * (pair - below) + below;
        const int high = low + apart;
        const bool descending = (low & run) == 0;
        const std::uint64_t a = values[low];
        const std::uint64_t b = values[high];
        if ((a < b) == descending) {
          values[low] = b;
          values[high] = a;
        }
      }
      SyncBlock();
    }
  }
}

struct Candidates {
  int count;      // in shared.ranked, descending
  bool fit;       // false: there are more than fit
  bool complete;  // all tokens that can be drawn are among them
};

// The best tokens of a pass, at least `wanted` if there are so many: all whose key is at least that
// of the wanted-th best maximum of a group.
__device__ Candidates FindCandidates(const SampleStep& step, const PackedPass& pass,
                                     std::uint32_t wanted, ChooseShared* shared) {
  const auto groups = static_cast<std::uint32_t>(GroupsOf(step.vocab));
  std::uint32_t least = kLowestKey;
  if (wanted < groups) {
    const std::uint32_t* keys = step.groups + std::int64_t{pass.maxima} * groups;
    const std::uint32_t key =
        KthGreatest(keys, static_cast<int>(groups), static_cast<int>(wanted), shared);
    least = key > kLowestKey ? key : kLowestKey;
  }
  const int count = Collect(step, pass, least, shared);
  if (count > kCandidates) return {0, false, false};
  SortDescending(shared->ranked, count);
  return {count, true, least == kLowestKey};
}

// Weights of shared.ranked[0 .. n) into shared.weights; ends with a barrier.
__device__ void WeighCandidates(const SampleWeights& weights, int n, ChooseShared* shared) {
  for (int i = Thread(); i < n; i += kChooseThreads) {
    shared->weights[i] = weights(LogitOf(KeyOfRanked(shared->ranked[i])));
  }
  SyncBlock();
}

// How many of the best are kept by top-k, top-p and min-p; 0 if the nucleus ends beyond them.
// `sum_of_all` is that of the whole vocabulary, used without top-k. One thread.
__device__ int KeptOf(const PackedPass& pass, const double* weights, int n, bool complete,
                      double sum_of_all) {
  int kept = n;
  if (pass.top_p < 1.0F) {
    const double total = pass.top_k > 0 ? SumInOrder(weights, n) : sum_of_all;
    const int size = NucleusSize(weights, n, pass.top_p * total);
    if (size > n && pass.top_k == 0 && !complete) return 0;
    kept = size < n ? size : n;
  }
  const double least = LeastWeight(pass);
  while (weights[kept - 1] < least) --kept;  // the first has weight 1
  return kept;
}

__device__ void DrawFromTop(const SampleStep& step, const PackedPass& pass, int index,
                            const SampleWeights& weights, ChooseShared* shared) {
  double sum_of_all = 0.0;
  if (pass.top_k == 0) {
    LoadSums(step, index, shared);
    if (Thread() == 0) sum_of_all = SumInOrder(shared->weights, SlicesOf(step.vocab));
  }
  const std::uint32_t wanted = pass.top_k > 0 ? pass.top_k : kNucleusGroups;
  const Candidates found = FindCandidates(step, pass, wanted, shared);
  if (!found.fit) {
    if (Thread() == 0) step.unsettled[index] = 1;
    return;
  }
  const bool cut = pass.top_k > 0 && pass.top_k < static_cast<std::uint32_t>(found.count);
  const int n = cut ? static_cast<int>(pass.top_k) : found.count;
  WeighCandidates(weights, n, shared);
  if (Thread() == 0) {
    shared->kept = KeptOf(pass, shared->weights, n, found.complete, sum_of_all);
  }
  SyncBlock();
  const int kept = shared->kept;
  if (kept == 0) {
    if (Thread() == 0) step.unsettled[index] = 1;
    return;
  }
  // By ascending id: with the halves swapped, descending.
  for (int i = Thread(); i < kept; i += kChooseThreads) {
    const std::uint64_t ranked = shared->ranked[i];
    shared->ranked[i] = (ranked << 32) | (ranked >> 32);
  }
  SortDescending(shared->ranked, kept);
  for (int i = Thread(); i < kept; i += kChooseThreads) {
    shared->weights[i] = weights(LogitOf(static_cast<std::uint32_t>(shared->ranked[i])));
  }
  SyncBlock();
  if (Thread() != 0) return;
  const double target = UniformOf(pass) * SumInOrder(shared->weights, kept);
  const int at = FirstAbove(shared->weights, kept, target);
  const std::uint64_t chosen = shared->ranked[at >= 0 ? at : kept - 1];
  WriteToken(step, pass.row, true, ~static_cast<std::uint32_t>(chosen >> 32));
}

// ---- Logprobs ----------------------------------------------------------------------------------

// The best tokens of the raw logits, `count` or fewer, from a descending list.
__device__ void WriteTop(const PackedPass& pass, const std::uint64_t* ranked, int count,
                         SampleResult* result) {
  const int n = count < pass.num_top ? count : pass.num_top;
  if (Thread() == 0) result->num_top = static_cast<std::uint32_t>(n);
  for (int i = Thread(); i < n; i += static_cast<int>(blockDim.x)) {
    result->top_tokens[i] = TokenOfRanked(ranked[i]);
    result->top_logits[i] = LogitOf(KeyOfRanked(ranked[i]));
  }
}

__device__ void Logprobs(const SampleStep& step, const PackedPass& pass, int index,
                         const SampleWeights& weights, ChooseShared* shared) {
  SampleResult& result = step.results[pass.row];
  LoadSums(step, index, shared);
  if (Thread() == 0) {
    result.max = static_cast<float>(weights.max);
    result.total = SumInOrder(shared->weights, SlicesOf(step.vocab));
    result.num_top = 0;
  }
  if (pass.num_top == 0) return;
  const Candidates found =
      FindCandidates(step, pass, static_cast<std::uint32_t>(pass.num_top), shared);
  if (found.fit) {
    WriteTop(pass, shared->ranked, found.count, &result);
  } else if (Thread() == 0) {
    step.unsettled[index] = 1;
  }
}

__global__ void __launch_bounds__(kChooseThreads) ChooseKernel(SampleStep step) {
  AwaitPrevious();
  const int index = static_cast<int>(blockIdx.x);
  if (index >= step.counts->passes) return;
  const PackedPass& pass = step.passes[index];
  if (Thread() == 0) step.unsettled[index] = 0;
  const std::uint64_t best = BestOfRow(step, pass);
  const std::uint32_t key = KeyOfRanked(best);
  // Not so when all tokens are masked, or penalties have driven one to infinity.
  const bool finite = RowIsFinite(step, pass.row) && key != kNeverDrawn && key < kInfinityKey;
  auto* shared = BlockShared<ChooseShared>();
  const bool samples = pass.kind != PassKind::kLogprobs;
  if (!finite || pass.kind == PassKind::kGreedy) {
    if (samples && Thread() == 0) WriteToken(step, pass.row, finite, TokenOfRanked(best));
    return;
  }
  const SampleWeights weights = WeightsOf(pass, best);
  if (pass.kind == PassKind::kDraw) return DrawFromAll(step, pass, index, weights, shared);
  if (pass.kind == PassKind::kDrawTop) return DrawFromTop(step, pass, index, weights, shared);
  Logprobs(step, pass, index, weights, shared);
}

// ---- Whole rows sorted -------------------------------------------------------------------------

constexpr int kSortThreads = 1024;
constexpr int kSortWarps = kSortThreads / kWarpSize;

struct SortShared {
  int sort[CountingSortInts(kSortWarps, kDigits)];
  double window[kSortThreads];
  int of_warp[kSortWarps];
  int count;
  int stopped;
};

// One digit of a stable sort from `from` to `to`: descending by bits [shift, shift + 8).
__device__ void SortDigit(const std::uint64_t* from, std::uint64_t* to, int n, int shift,
                          SortShared* shared) {
  const CountingSortSpace space = CountingSortSpaceAt(shared->sort, kSortWarps, kDigits);
  const auto bin_of = [from, shift](int i) {
    return kDigits - 1 - static_cast<int>((from[i] >> shift) & (kDigits - 1));
  };
  CountBins(n, kDigits, space, bin_of);
  PlaceInOrder(n, kDigits, space, bin_of, [from, to](int i, int at) { to[at] = from[i]; });
  SyncBlock();
}

// Fills `ranked` with the row and sorts it descending by key, ties by ascending id; returns how
// many can be drawn. `spare` has room for as many.
__device__ int SortRow(const float* row, int vocab, std::uint64_t* ranked, std::uint64_t* spare,
                       SortShared* shared) {
  if (Thread() == 0) shared->count = 0;
  SyncBlock();
  int drawn = 0;
  for (int i = Thread(); i < vocab; i += kSortThreads) {
    const std::uint32_t key = KeyOf(row[i]);
    ranked[i] = Ranked(key, static_cast<std::uint32_t>(i));
    drawn += key != kNeverDrawn ? 1 : 0;
  }
  AtomicAdd(&shared->count, drawn);
  for (int shift = 32; shift < 64; shift += 16) {
    SortDigit(ranked, spare, vocab, shift, shared);
    SortDigit(spare, ranked, vocab, shift + 8, shared);
  }
  return shared->count;
}

// Calls visit(i, weight_at(i)) by one thread for i = 0, 1, .. until it says true or n are visited;
// weights are computed by all. A barrier must follow a walk that stopped.
template <typename WeightAt, typename Visit>
__device__ void VisitInOrder(int n, const WeightAt& weight_at, const Visit& visit,
                             SortShared* shared) {
  if (Thread() == 0) shared->stopped = 0;
  for (int first = 0; first < n; first += kSortThreads) {
    if (first + Thread() < n) shared->window[Thread()] = weight_at(first + Thread());
    SyncBlock();
    if (Thread() == 0) {
      const int count = n - first < kSortThreads ? n - first : kSortThreads;
      for (int i = 0; i < count && shared->stopped == 0; ++i) {
        if (visit(first + i, shared->window[i])) shared->stopped = 1;
      }
    }
    SyncBlock();
    if (shared->stopped != 0) break;
  }
}

// The sum of weights [0, n) in order, for thread 0: that which walks and needs it.
template <typename WeightAt>
__device__ double SumOfAll(int n, const WeightAt& weight_at, SortShared* shared) {
  double sum = 0.0;
  VisitInOrder(
      n, weight_at,
      [&sum](int, double weight) {
        sum = sum + weight;
        return false;
      },
      shared);
  return sum;
}

// The first i whose running sum is above `target` (or reaches it), or n; for all threads.
template <typename WeightAt>
__device__ int FirstPast(int n, const WeightAt& weight_at, double target, bool reach,
                         SortShared* shared) {
  double sum = 0.0;
  int found = n;
  VisitInOrder(
      n, weight_at,
      [&](int i, double weight) {
        sum = sum + weight;
        if (reach ? sum < target : sum <= target) return false;
        found = i;
        return true;
      },
      shared);
  if (Thread() == 0) shared->count = found;
  SyncBlock();
  return shared->count;
}

// The last i < n whose weight is not below `least`, plus one; for all threads.
template <typename WeightAt>
__device__ int LastNotBelow(int n, const WeightAt& weight_at, double least, SortShared* shared) {
  int last = 0;
  for (int i = Thread(); i < n; i += kSortThreads) last = weight_at(i) < least ? last : i + 1;
  last = MaxOfWarp(last);
  if (Thread() % kWarpSize == 0) shared->of_warp[Thread() / kWarpSize] = last;
  SyncBlock();
  for (const int other : shared->of_warp) last = other > last ? other : last;
  return last;
}

__device__ void DrawFromSorted(const SampleStep& step, const PackedPass& pass, int index,
                               const SampleWeights& weights, std::uint64_t* ranked,
                               std::uint64_t* spare, int drawn, SortShared* shared) {
  const auto weight_at = [ranked, &weights](int i) {
    return weights(LogitOf(KeyOfRanked(ranked[i])));
  };
  const bool cut = pass.top_k > 0 && pass.top_k < static_cast<std::uint32_t>(drawn);
  int kept = cut ? static_cast<int>(pass.top_k) : drawn;
  if (pass.top_p < 1.0F) {
    const double* sums = step.sums + std::int64_t{index} * SlicesOf(step.vocab);
    const double total = pass.top_k > 0
                             ? SumOfAll(kept, weight_at, shared)
                             : SumOfAll(
                                   SlicesOf(step.vocab), [sums](int i) { return sums[i]; }, shared);
    const int at = FirstPast(kept, weight_at, pass.top_p * total, true, shared);
    kept = at < kept ? at + 1 : kept;
  }
  kept = LastNotBelow(kept, weight_at, LeastWeight(pass), shared);
  // By ascending id, which stands inverted in the low half; the vocabulary needs three digits.
  static_assert(kMaxSampleVocab <= 1 << 24);
  SortDigit(ranked, spare, kept, 0, shared);
  SortDigit(spare, ranked, kept, 8, shared);
  SortDigit(ranked, spare, kept, 16, shared);
  const auto weight_by_id = [spare, &weights](int i) {
    return weights(LogitOf(KeyOfRanked(spare[i])));
  };
  const double target = UniformOf(pass) * SumOfAll(kept, weight_by_id, shared);
  const int at = FirstPast(kept, weight_by_id, target, false, shared);
  if (Thread() == 0) {
    WriteToken(step, pass.row, true, TokenOfRanked(spare[at < kept ? at : kept - 1]));
  }
}

__global__ void __launch_bounds__(kSortThreads) SortAndChooseKernel(SampleStep step) {
  AwaitPrevious();
  auto* shared = BlockShared<SortShared>();
  const auto own = static_cast<int>(blockIdx.x);
  std::uint64_t* ranked = step.sort + std::int64_t{2} * own * step.vocab;
  std::uint64_t* spare = ranked + step.vocab;
  for (int index = own; index < step.counts->passes; index += kSortBlocks) {
    if (step.unsettled[index] == 0) continue;
    const PackedPass& pass = step.passes[index];
    const SampleWeights weights = WeightsOf(pass, BestOfRow(step, pass));
    const int drawn = SortRow(RowOfPass(step, pass), step.vocab, ranked, spare, shared);
    if (pass.kind == PassKind::kLogprobs) {
      WriteTop(pass, ranked, drawn, &step.results[pass.row]);
    } else {
      DrawFromSorted(step, pass, index, weights, ranked, spare, drawn, shared);
    }
  }
}

}  // namespace

cudaError_t LaunchChoose(const SampleStep& step, const SampleShape& shape, bool chained,
                         cudaStream_t stream) {
  const LaunchShape choose = {dim3(static_cast<unsigned>(shape.passes)), dim3(kChooseThreads),
                              sizeof(ChooseShared), chained};
  const cudaError_t error = Launch(ChooseKernel, choose, stream, step);
  if (error != cudaSuccess || !shape.searches) return error;
  const LaunchShape sort = {dim3(kSortBlocks), dim3(kSortThreads), sizeof(SortShared), chained};
  return Launch(SortAndChooseKernel, sort, stream, step);
}

}  // namespace millrace::cuda
