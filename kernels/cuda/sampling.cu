// The passes over whole rows of logits, by many blocks: changes, maxima, sums, ranks. What chooses
// is in kernels/cuda/sampling_choose.cu.
#include "kernels/cuda/sampling.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling_device.h"

namespace millrace::cuda {
namespace {

constexpr int kWarpsOfChunk = kChunkThreads / kWarpSize;
constexpr int kGroupsOfWarp = kChunkTokens / kGroupTokens / kWarpsOfChunk;
static_assert(kGroupTokens == 4 * kWarpSize && kGroupsOfWarp == 2);

__device__ float Masked() { return BitsFloat(0xFF800000U); }  // minus infinity

struct alignas(16) FourLogits {
  float at[4];
};

// Logits of tokens [first, first + 4); those beyond the vocabulary are masked.
__device__ FourLogits LoadFour(const float* row, int first, int vocab) {
  const float* from = row + first;
  if (first + 4 <= vocab && reinterpret_cast<std::uintptr_t>(from) % sizeof(FourLogits) == 0) {
    return *reinterpret_cast<const FourLogits*>(from);
  }
  FourLogits out;
  for (int i = 0; i < 4; ++i) out.at[i] = first + i < vocab ? from[i] : Masked();
  return out;
}

__device__ bool HasFault(const FourLogits& logits, int first, int vocab) {
  bool fault = false;
  for (int i = 0; i < 4; ++i) fault |= first + i < vocab && !IsFinite(logits.at[i]);
  return fault;
}

// The first of this thread's four tokens in group `g` of its warp.
__device__ int FirstOfThread(int g) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  return static_cast<int>(blockIdx.x) * kChunkTokens + (g * kWarpsOfChunk + warp) * kGroupTokens +
         4 * lane;
}

struct ChunkShared {
  std::uint64_t best[kWarpsOfChunk];
  std::int32_t fault[kWarpsOfChunk];
};

// Whether any thread of the block has seen a fault; for thread 0.
__device__ bool AnyFault(bool fault, ChunkShared* shared) {
  const unsigned lanes = Ballot(fault);
  if (threadIdx.x % kWarpSize == 0) shared->fault[threadIdx.x / kWarpSize] = lanes != 0 ? 1 : 0;
  SyncBlock();
  bool any = false;
  for (int warp = 0; warp < kWarpsOfChunk; ++warp) any |= shared->fault[warp] != 0;
  return any;
}

// ---- Changes -----------------------------------------------------------------------------------

// Copies the rows that are changed, masked where only some tokens are allowed.
__global__ void __launch_bounds__(kChunkThreads) CopyChangedKernel(SampleStep step) {
  AwaitPrevious();
  const int index = static_cast<int>(blockIdx.y);
  if (index >= step.counts->changes) return;
  const PackedChange& change = step.changes[index];
  const float* raw = RawRow(step, change.row);
  float* changed = ChangedRow(step, index);
  const bool masked = change.allowed.count > 0;
  bool fault = false;
  for (int g = 0; g < kGroupsOfWarp; ++g) {
    const int first = FirstOfThread(g);
    const FourLogits logits = LoadFour(raw, first, step.vocab);
    fault |= HasFault(logits, first, step.vocab);
    for (int i = 0; i < 4 && first + i < step.vocab; ++i) {
      changed[first + i] = masked ? Masked() : logits.at[i];
    }
  }
  const bool any = AnyFault(fault, BlockShared<ChunkShared>());
  if (threadIdx.x == 0) {
    step.faults[std::int64_t{change.row} * ChunksOf(step.vocab) + blockIdx.x] = any ? 1 : 0;
  }
}

constexpr int kApplyThreads = 512;

__device__ float Penalised(float logit, std::uint32_t times, const PackedChange& change) {
  if (change.repetition_penalty != 1.0F) {
    logit = logit > 0.0F ? logit / change.repetition_penalty : logit * change.repetition_penalty;
  }
  if (times == 0) return logit;
  logit = logit - change.frequency_penalty * static_cast<float>(times);
  return logit - change.presence_penalty;
}

// Allowed tokens, banned ones, penalties and biases of one row, in this order; a block each.
__global__ void __launch_bounds__(kApplyThreads) ApplyChangesKernel(SampleStep step) {
  AwaitPrevious();
  const int index = static_cast<int>(blockIdx.x);
  if (index >= step.counts->changes) return;
  const PackedChange& change = step.changes[index];
  const float* raw = RawRow(step, change.row);
  float* changed = ChangedRow(step, index);
  const auto vocab = static_cast<std::uint32_t>(step.vocab);

  const std::uint32_t* allowed = step.lists + change.allowed.begin;
  for (std::uint32_t i = threadIdx.x; i < change.allowed.count; i += kApplyThreads) {
    if (allowed[i] < vocab) changed[allowed[i]] = raw[allowed[i]];
  }
  SyncBlock();
  const std::uint32_t* banned = step.lists + change.banned.begin;
  for (std::uint32_t i = threadIdx.x; i < change.banned.count; i += kApplyThreads) {
    if (banned[i] < vocab) changed[banned[i]] = Masked();
  }
  SyncBlock();
  const std::uint32_t* seen = step.lists + change.seen.begin;
  for (std::uint32_t i = threadIdx.x; i < change.seen.count; i += kApplyThreads) {
    const std::uint32_t token = seen[2 * i];
    if (token < vocab) changed[token] = Penalised(changed[token], seen[2 * i + 1], change);
  }
  SyncBlock();
  // Biases of one token stand side by side and are added by the thread of the first.
  const std::uint32_t* bias = step.lists + change.bias.begin;
  for (std::uint32_t i = threadIdx.x; i < change.bias.count; i += kApplyThreads) {
    const std::uint32_t token = bias[2 * i];
    if (token >= vocab || (i > 0 && bias[2 * i - 2] == token)) continue;
    float logit = changed[token];
    for (std::uint32_t j = i; j < change.bias.count && bias[2 * j] == token; ++j) {
      logit = logit + BitsFloat(bias[2 * j + 1]);
    }
    changed[token] = logit;
  }
}

// ---- Maxima, sums, ranks -----------------------------------------------------------------------

// The maximum of each group and the best token of each chunk of what a pass looks at; and, for the
// logits as they are, whether all are finite.
__global__ void __launch_bounds__(kChunkThreads) FindBestKernel(SampleStep step) {
  AwaitPrevious();
  const int index = static_cast<int>(blockIdx.y);
  if (index >= step.counts->passes) return;
  const PackedPass& pass = step.passes[index];
  if (pass.maxima != index) return;
  const float* row = RowOfPass(step, pass);
  FourLogits logits[kGroupsOfWarp];
  for (int g = 0; g < kGroupsOfWarp; ++g) logits[g] = LoadFour(row, FirstOfThread(g), step.vocab);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  std::uint64_t best = 0;
  bool fault = false;
  for (int g = 0; g < kGroupsOfWarp; ++g) {
    const int first = FirstOfThread(g);
    std::uint64_t own = 0;
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t key = KeyOf(logits[g].at[i]);
      const std::uint64_t ranked = Ranked(key, static_cast<std::uint32_t>(first + i));
      own = key != kNeverDrawn && ranked > own ? ranked : own;
    }
    fault |= HasFault(logits[g], first, step.vocab);
    own = MaxOfWarp(own);
    const int group = first / kGroupTokens;
    const int groups = GroupsOf(step.vocab);
    if (lane == 0 && group < groups) {
      step.groups[std::int64_t{index} * groups + group] = KeyOfRanked(own);
    }
    best = own > best ? own : best;
  }
  auto* shared = BlockShared<ChunkShared>();
  if (lane == 0) shared->best[threadIdx.x / kWarpSize] = best;
  const bool any = AnyFault(fault, shared);  // with the barrier
  if (threadIdx.x != 0) return;
  for (int warp = 0; warp < kWarpsOfChunk; ++warp) {
    best = shared->best[warp] > best ? shared->best[warp] : best;
  }
  const int chunks = ChunksOf(step.vocab);
  step.best[std::int64_t{index} * chunks + blockIdx.x] = best;
  if (pass.change < 0) {
    step.faults[std::int64_t{pass.row} * chunks + blockIdx.x] = any ? 1 : 0;
  }
}

constexpr int kSlice = static_cast<int>(kSampleSlice);
constexpr int kLanesOfSlice = static_cast<int>(kSampleLanes);
constexpr int kSlicesOfBlock = 4;  // a warp each

struct SliceShared {
  double weights[kSlicesOfBlock][kSlice];
};

// The sum of a slice's weights, [n], in its fixed lanes (kernels/sampling_weights.h); the first
// threads of the warp are those lanes. All 32 threads; for thread 0.
__device__ double SumOfSlice(const double* weights, int n) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  double sum = 0.0;
  if (lane < kLanesOfSlice) {
    const int whole = n / kLanesOfSlice * kLanesOfSlice;
#pragma unroll 8
    for (int i = lane; i < whole; i += kLanesOfSlice) sum = sum + weights[i];
    for (int i = whole; lane == 0 && i < n; ++i) sum = sum + weights[i];
  }
  double total = 0.0;
  for (int i = 0; i < kLanesOfSlice; ++i) total = total + Shuffle(sum, i);
  return total;
}

__global__ void __launch_bounds__(kSlicesOfBlock* kWarpSize) SumSlicesKernel(SampleStep step) {
  AwaitPrevious();
  const int index = static_cast<int>(blockIdx.y);
  if (index >= step.counts->passes) return;
  const PackedPass& pass = step.passes[index];
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int slice = static_cast<int>(blockIdx.x) * kSlicesOfBlock + warp;
  const int begin = slice * kSlice;
  if (!NeedsSums(pass) || begin >= step.vocab) return;  // the whole warp
  const int n = step.vocab - begin < kSlice ? step.vocab - begin : kSlice;
  const float* row = RowOfPass(step, pass) + begin;
  float logits[kSlice / kWarpSize];
#pragma unroll
  for (int j = 0; j < kSlice / kWarpSize; ++j) {
    const int i = kWarpSize * j + lane;
    logits[j] = i < n ? row[i] : Masked();
  }
  const SampleWeights weights = WeightsOf(pass, BestOfRow(step, pass));
  const double least = LeastOfSums(pass);
  double* own = BlockShared<SliceShared>()->weights[warp];
#pragma unroll
  for (int j = 0; j < kSlice / kWarpSize; ++j) {
    const double weight = weights(logits[j]);
    own[kWarpSize * j + lane] = weight >= least ? weight : 0.0;
  }
  SyncWarp();
  const double sum = SumOfSlice(own, n);
  if (lane == 0) step.sums[std::int64_t{index} * SlicesOf(step.vocab) + slice] = sum;
}

// How many tokens come before the sampled one in the raw logits.
__global__ void __launch_bounds__(kChunkThreads) CountAheadKernel(SampleStep step) {
  AwaitPrevious();
  const int index = step.counts->rows + static_cast<int>(blockIdx.y);
  if (index >= step.counts->passes) return;
  const PackedPass& pass = step.passes[index];
  SampleResult& result = step.results[pass.row];
  if (result.finite == 0) return;
  const float* raw = RawRow(step, pass.row);
  const std::uint64_t chosen = Ranked(KeyOf(raw[result.token]), result.token);
  int ahead = 0;
  for (int g = 0; g < kGroupsOfWarp; ++g) {
    const int first = FirstOfThread(g);
    const FourLogits logits = LoadFour(raw, first, step.vocab);
    for (int i = 0; i < 4; ++i) {
      const auto token = static_cast<std::uint32_t>(first + i);
      ahead += Ranked(KeyOf(logits.at[i]), token) > chosen ? 1 : 0;
    }
  }
  for (int apart = kWarpSize / 2; apart > 0; apart /= 2) ahead += ShuffleXor(ahead, apart);
  if (threadIdx.x % kWarpSize == 0 && ahead > 0) AtomicAdd(&result.ahead, ahead);
  if (blockIdx.x == 0 && threadIdx.x == 0) result.chosen = LogitOf(KeyOfRanked(chosen));
}

// ---- Feeding the next step ---------------------------------------------------------------------

constexpr int kTakeThreads = 128;

__global__ void __launch_bounds__(kTakeThreads) TakeTokensKernel(TakeTokensParams params) {
  AwaitPrevious();
  const int i = static_cast<int>(blockIdx.x * kTakeThreads + threadIdx.x);
  if (i < *params.count) {
    params.token_ids[params.taken[i].index] = params.sampled[params.taken[i].row];
  }
  LetNextBegin();
}

SampleStep StepOf(const SampleParams& params) {
  const SampleBufferLayout packed = SampleBufferLayoutOf(params.max_rows);
  const SampleScratchLayout scratch = SampleScratchLayoutOf(params.max_rows, params.vocab);
  SampleStep step = {};
  step.logits = params.logits;
  step.logits_stride = params.logits_stride;
  step.vocab = params.vocab;
  step.counts = reinterpret_cast<const PackedCounts*>(params.packed);
  step.passes = reinterpret_cast<const PackedPass*>(params.packed + packed.passes);
  step.changes = reinterpret_cast<const PackedChange*>(params.packed + packed.changes);
  step.lists = reinterpret_cast<const std::uint32_t*>(params.packed + packed.lists);
  step.groups = reinterpret_cast<std::uint32_t*>(params.scratch + scratch.groups);
  step.best = reinterpret_cast<std::uint64_t*>(params.scratch + scratch.best);
  step.faults = reinterpret_cast<std::int32_t*>(params.scratch + scratch.faults);
  step.sums = reinterpret_cast<double*>(params.scratch + scratch.sums);
  step.unsettled = reinterpret_cast<std::int32_t*>(params.scratch + scratch.unsettled);
  step.sort = reinterpret_cast<std::uint64_t*>(params.scratch + scratch.sort);
  step.changed = reinterpret_cast<float*>(params.scratch + scratch.changed);
  step.changed_stride = static_cast<std::int64_t>(scratch.changed_stride);
  step.results = params.results;
  step.tokens = params.tokens;
  return step;
}

LaunchShape Shape(int x, int y, int threads, std::size_t shared_bytes, bool chained) {
  return {dim3(static_cast<unsigned>(x), static_cast<unsigned>(y)),
          dim3(static_cast<unsigned>(threads)), shared_bytes, chained};
}

}  // namespace

std::size_t SampleScratchBytes(std::int32_t max_rows, std::int32_t vocab) {
  return SampleScratchLayoutOf(max_rows, vocab).bytes;
}

cudaError_t LaunchSample(const SampleParams& params, cudaStream_t stream) {
  const SampleShape& shape = params.shape;
  if (params.vocab < 1 || params.vocab > kMaxSampleVocab) return cudaErrorInvalidValue;
  if (shape.rows == 0) return cudaSuccess;
  const SampleStep step = StepOf(params);
  const int chunks = ChunksOf(params.vocab);
  cudaError_t error = cudaSuccess;
  const auto launch = [&](void (*kernel)(SampleStep), const LaunchShape& launch_shape) {
    if (error == cudaSuccess) error = Launch(kernel, launch_shape, stream, step);
  };
  const bool chained = params.chained;
  if (shape.changes > 0) {
    launch(CopyChangedKernel,
           Shape(chunks, shape.changes, kChunkThreads, sizeof(ChunkShared), chained));
    launch(ApplyChangesKernel, Shape(shape.changes, 1, kApplyThreads, 0, chained));
  }
  launch(FindBestKernel, Shape(chunks, shape.passes, kChunkThreads, sizeof(ChunkShared), chained));
  if (shape.sums) {
    launch(SumSlicesKernel, Shape(DivideUp(SlicesOf(params.vocab), kSlicesOfBlock), shape.passes,
                                  kSlicesOfBlock * kWarpSize, sizeof(SliceShared), chained));
  }
  if (error == cudaSuccess) error = LaunchChoose(step, shape, chained, stream);
  if (shape.logprobs) {
    launch(CountAheadKernel, Shape(chunks, shape.passes, kChunkThreads, 0, chained));
  }
  return error;
}

cudaError_t LaunchTakeTokens(const TakeTokensParams& params, cudaStream_t stream) {
  if (params.max_count == 0) return cudaSuccess;
  return Launch(TakeTokensKernel,
                Shape(DivideUp(params.max_count, kTakeThreads), 1, kTakeThreads, 0, params.chained),
                stream, params);
}

}  // namespace millrace::cuda
