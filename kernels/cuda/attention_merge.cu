// The merge of attention's partials, partition after partition, and the result in every format that
// the output projection reads. A block takes heads of one token that make whole blocks of 256
// values.
//
// The chain of maxima is one thread's and short; the exponentials then are everybody's; an element
// of the output is one thread's chain of fma. A batch of partitions goes through these at a time.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/exp.h"
#include "kernels/cuda/lanes16.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/quantize.h"

namespace millrace::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBatch = 32;  // partitions: 8 192 positions

// The fewest heads that divide all and whose values are whole blocks of the largest format; all of
// them where no such number is.
constexpr int HeadsOfBlock(int num_heads, int dim) {
  for (int heads = 1; heads < num_heads; ++heads) {
    if (num_heads % heads == 0 && heads * dim % 256 == 0) return heads;
  }
  return num_heads;
}

// Shared memory of a block, in this order.
struct Space {
  float* out;      // [heads][dim], aligned to 16
  float* max;      // [heads][kBatch] of each partition
  float* sum;      // [heads][kBatch] of each partition
  float* keep;     // [heads][kBatch] the largest before the partition, then the factor of what was
  float* add;      // [heads][kBatch] the largest with it, then the factor of what it adds
  float* largest;  // [heads] of all so far
  float* total;    // [heads] sum of all so far
};
constexpr std::size_t SharedBytes(int heads, int dim) {
  return static_cast<std::size_t>(heads * (dim + 4 * kBatch + 2)) * sizeof(float);
}
__device__ Space SpaceOf(int heads, int dim) {
  Space s;
  s.out = BlockShared<float>();
  s.max = s.out + heads * dim;
  s.sum = s.max + heads * kBatch;
  s.keep = s.sum + heads * kBatch;
  s.add = s.keep + heads * kBatch;
  s.largest = s.add + heads * kBatch;
  s.total = s.largest + heads;
  return s;
}

// Of `batch` partitions from `first` on: maxima and sums, and the largest before and with each.
__device__ void ChainMaxima(const float* entries, std::int64_t stride, int heads, int dim,
                            int batch, const Space& s) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < heads * kBatch; i += kThreads) {
    if (i % kBatch >= batch) continue;
    const float* entry = entries + i % kBatch * stride + i / kBatch * (dim + 2);
    s.max[i] = entry[dim];
    s.sum[i] = entry[dim + 1];
  }
  SyncBlock();
  for (int head = thread; head < heads; head += kThreads) {
    float largest = s.largest[head];
    for (int i = head * kBatch; i < head * kBatch + batch; ++i) {
      s.keep[i] = largest;
      if (s.sum[i] != 0.0F) largest = MaxOf(largest, s.max[i]);
      s.add[i] = largest;
    }
    s.largest[head] = largest;
  }
  SyncBlock();
  for (int i = thread; i < heads * kBatch; i += kThreads) {
    if (i % kBatch >= batch) continue;
    const float with = s.add[i];
    s.keep[i] = Exp(s.keep[i] - with);
    s.add[i] = Exp(s.max[i] - with);
  }
  SyncBlock();
}

// Takes one sum (of an element, or of weights) through the batch; `what` is its part of the first
// partition's entry. A partition that saw nothing (sum 0) is passed over.
__device__ float Merge(const float* what, std::int64_t stride, int head, int batch, float merged,
                       const Space& s) {
#pragma unroll 8
  for (int p = 0; p < batch; ++p) {
    const int at = head * kBatch + p;
    const float next = Fma(what[p * stride], s.add[at], merged * s.keep[at]);
    merged = s.sum[at] != 0.0F ? next : merged;
  }
  return merged;
}

__global__ void __launch_bounds__(kThreads) MergeKernel(AttentionMergeParams p, int heads) {
  const int token = p.first_token + static_cast<int>(blockIdx.x);
  if (token >= *p.num_tokens) {
    AwaitPrevious();
    return;
  }
  const int dim = p.head_dim;
  const int first_head = static_cast<int>(blockIdx.y) * heads;
  const int partitions = p.positions[token] / kKvPartition + 1;
  const std::int64_t start = p.partial_start[token];
  const float* entries = p.partials + (start * p.num_heads + first_head) * (dim + 2);
  const std::int64_t stride = std::int64_t{p.num_heads} * (dim + 2);
  const Space s = SpaceOf(heads, dim);
  const int thread = static_cast<int>(threadIdx.x);
  for (int head = thread; head < heads; head += kThreads) {
    s.largest[head] = BitsFloat(0xFF800000U);  // minus infinity
    s.total[head] = 0.0F;
  }
  for (int i = thread; i < heads * dim; i += kThreads) s.out[i] = 0.0F;
  AwaitPrevious();

  for (int from = 0; from < partitions; from += kBatch) {
    const int batch = partitions - from < kBatch ? partitions - from : kBatch;
    const float* batch_entries = entries + from * stride;
    ChainMaxima(batch_entries, stride, heads, dim, batch, s);
    for (int i = thread; i < heads * dim; i += kThreads) {
      const float* element = batch_entries + i / dim * (dim + 2) + i % dim;
      s.out[i] = Merge(element, stride, i / dim, batch, s.out[i], s);
    }
    for (int head = thread; head < heads; head += kThreads) {
      s.total[head] = Merge(s.sum + head * kBatch, 1, head, batch, s.total[head], s);
    }
    SyncBlock();
  }
  LetNextBegin();
  for (int i = thread; i < heads * dim; i += kThreads) s.out[i] = s.out[i] / s.total[i / dim];
  SyncBlock();
  WriteActivations(s.out, first_head * dim, heads * dim, std::int64_t{p.num_heads} * dim, token,
                   p.out);
}

}  // namespace

cudaError_t LaunchAttentionMerge(const AttentionMergeParams& params, cudaStream_t stream) {
  const int heads = HeadsOfBlock(params.num_heads, params.head_dim);
  const LaunchShape shape = {dim3(static_cast<unsigned>(params.max_tokens),
                                  static_cast<unsigned>(params.num_heads / heads)),
                             dim3(kThreads), SharedBytes(heads, params.head_dim), params.chained};
  return Launch(MergeKernel, shape, stream, params, heads);
}

}  // namespace millrace::cuda
