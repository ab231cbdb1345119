// The merge of attention's partials of some heads of one token by one block, partition after
// partition, and the result in every format that the output projection reads; for the kernels that
// do it: alone, or behind the partials of a few tokens.
//
// The chain of maxima is one thread's and short; the exponentials then are everybody's; an element
// of the output is one thread's chain of fma. A batch of partitions goes through these at a time.
//
// Device code, all threads of the block together, and the host's sums for the launch.
#ifndef MILLRACE_KERNELS_CUDA_ATTENTION_MERGE_BLOCK_H_
#define MILLRACE_KERNELS_CUDA_ATTENTION_MERGE_BLOCK_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/activation_rows.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/exp.h"
#include "kernels/cuda/lanes16.h"
#include "kernels/cuda/quantize.h"

namespace millrace::cuda {

inline constexpr int kMergeBatch = 32;  // partitions: 8 192 positions

// The fewest heads that divide all and whose values are whole blocks of the largest format; all of
// them where no such number is. A part of a token is merged as a whole.
constexpr int HeadsOfMerge(int num_heads, int dim) {
  for (int heads = 1; heads < num_heads; ++heads) {
    if (num_heads % heads == 0 && heads * dim % 256 == 0) return heads;
  }
  return num_heads;
}

// Shared memory, in this order.
struct MergeSpace {
  float* out;      // [heads][dim], aligned to 16
  float* max;      // [heads][kMergeBatch] of each partition
  float* sum;      // [heads][kMergeBatch] of each partition
  float* keep;     // [heads][kMergeBatch] the largest before, then the factor of what was
  float* add;      // [heads][kMergeBatch] the largest with it, then the factor of what it adds
  float* largest;  // [heads] of all so far
  float* total;    // [heads] sum of all so far
};
constexpr int MergeFloats(int heads, int dim) { return heads * (dim + 4 * kMergeBatch + 2); }

__device__ inline MergeSpace MergeSpaceAt(float* shared, int heads, int dim) {
  MergeSpace s;
  s.out = shared;
  s.max = s.out + heads * dim;
  s.sum = s.max + heads * kMergeBatch;
  s.keep = s.sum + heads * kMergeBatch;
  s.add = s.keep + heads * kMergeBatch;
  s.largest = s.add + heads * kMergeBatch;
  s.total = s.largest + heads;
  return s;
}

// Heads of one token, whole parts of it, and where their entries lie: that of the first head and
// partition, `stride` floats from partition to partition; heads follow each other.
struct MergeHeads {
  const float* entries;
  std::int64_t stride;
  std::int64_t token;
  int first;
  int count;
  int partitions;
};

template <int kThreads>
__device__ void BeginMerge(int heads, int dim, const MergeSpace& s) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int head = thread; head < heads; head += kThreads) {
    s.largest[head] = BitsFloat(0xFF800000U);  // minus infinity
    s.total[head] = 0.0F;
  }
  for (int i = thread; i < heads * dim; i += kThreads) s.out[i] = 0.0F;
}

// Of `batch` partitions from `entries` on: maxima and sums, and the largest before and with each.
template <int kThreads>
__device__ void ChainMaxima(const float* entries, std::int64_t stride, int heads, int dim,
                            int batch, const MergeSpace& s) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < heads * kMergeBatch; i += kThreads) {
    if (i % kMergeBatch >= batch) continue;
    const float* entry = entries + i % kMergeBatch * stride + i / kMergeBatch * (dim + 2);
    s.max[i] = entry[dim];
    s.sum[i] = entry[dim + 1];
  }
  SyncBlock();
  for (int head = thread; head < heads; head += kThreads) {
    float largest = s.largest[head];
    for (int i = head * kMergeBatch; i < head * kMergeBatch + batch; ++i) {
      s.keep[i] = largest;
      if (s.sum[i] != 0.0F) largest = MaxOf(largest, s.max[i]);
      s.add[i] = largest;
    }
    s.largest[head] = largest;
  }
  SyncBlock();
  for (int i = thread; i < heads * kMergeBatch; i += kThreads) {
    if (i % kMergeBatch >= batch) continue;
    const float with = s.add[i];
    s.keep[i] = Exp(s.keep[i] - with);
    s.add[i] = Exp(s.max[i] - with);
  }
  SyncBlock();
}

// Entries are an even number of floats, so pairs of their elements are aligned.
template <int kCount>
struct alignas(4 * kCount) MergedSums {
  float value[kCount];
};

// Takes kCount sums (of elements, or of weights) through the batch; `what` is their part of the
// first partition's entry. A partition that saw nothing (sum 0) is passed over.
template <int kCount>
__device__ void MergeSums(const float* what, std::int64_t stride, int head, int batch,
                          float* merged, const MergeSpace& s) {
  using Sums = MergedSums<kCount>;
  Sums sums = *reinterpret_cast<const Sums*>(merged);
#pragma unroll 8
  for (int p = 0; p < batch; ++p) {
    const Sums part = *reinterpret_cast<const Sums*>(what + p * stride);
    const int at = head * kMergeBatch + p;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float next = Fma(part.value[i], s.add[at], sums.value[i] * s.keep[at]);
      sums.value[i] = s.sum[at] != 0.0F ? next : sums.value[i];
    }
  }
  *reinterpret_cast<Sums*>(merged) = sums;
}

// All partitions, after BeginMerge; no barrier is needed between. Ends with one.
template <int kThreads>
__device__ void MergePartitions(const MergeHeads& heads, int dim, const MergeSpace& s) {
  constexpr int kPair = 2;
  const int thread = static_cast<int>(threadIdx.x);
  for (int from = 0; from < heads.partitions; from += kMergeBatch) {
    const int left = heads.partitions - from;
    const int batch = left < kMergeBatch ? left : kMergeBatch;
    const float* batch_entries = heads.entries + from * heads.stride;
    ChainMaxima<kThreads>(batch_entries, heads.stride, heads.count, dim, batch, s);
    for (int i = kPair * thread; i < heads.count * dim; i += kPair * kThreads) {
      const float* elements = batch_entries + i / dim * (dim + 2) + i % dim;
      MergeSums<kPair>(elements, heads.stride, i / dim, batch, s.out + i, s);
    }
    for (int head = thread; head < heads.count; head += kThreads) {
      MergeSums<1>(s.sum + head * kMergeBatch, 1, head, batch, s.total + head, s);
    }
    SyncBlock();
  }
}

// Divides by the totals and writes the heads' values of the token's row of `out`.
template <int kThreads>
__device__ void FinishMerge(const MergeHeads& heads, int num_heads, int dim,
                            const ActivationRows& out, const MergeSpace& s) {
  for (int i = static_cast<int>(threadIdx.x); i < heads.count * dim; i += kThreads) {
    s.out[i] = s.out[i] / s.total[i / dim];
  }
  SyncBlock();
  WriteActivations(s.out, heads.first * dim, heads.count * dim, std::int64_t{num_heads} * dim,
                   heads.token, out);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_ATTENTION_MERGE_BLOCK_H_
