// A block takes the fewest heads of a token that are merged as a whole.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_merge_block.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace millrace::cuda {
namespace {

constexpr int kMergeThreads = 256;

__global__ void __launch_bounds__(kMergeThreads) MergeKernel(AttentionMergeParams p, int count) {
  const int token = p.first_token + static_cast<int>(blockIdx.x);
  if (token >= *p.num_tokens) {
    AwaitPrevious();
    return;
  }
  const int dim = p.head_dim;
  MergeHeads heads;
  heads.token = token;
  heads.first = static_cast<int>(blockIdx.y) * count;
  heads.count = count;
  heads.partitions = p.positions[token] / kKvPartition + 1;
  heads.stride = std::int64_t{p.num_heads} * (dim + 2);
  heads.entries = p.partials + p.partial_start[token] * heads.stride + heads.first * (dim + 2);
  const MergeSpace s = MergeSpaceAt(BlockShared<float>(), count, dim);
  BeginMerge<kMergeThreads>(count, dim, s);
  AwaitPrevious();
  MergePartitions<kMergeThreads>(heads, dim, s);
  LetNextBegin();
  FinishMerge<kMergeThreads>(heads, p.num_heads, dim, p.out, s);
}

}  // namespace

cudaError_t LaunchAttentionMerge(const AttentionMergeParams& params, cudaStream_t stream) {
  const int heads = HeadsOfMerge(params.num_heads, params.head_dim);
  const LaunchShape shape = {
      dim3(static_cast<unsigned>(params.max_tokens),
           static_cast<unsigned>(params.num_heads / heads)),
      dim3(kMergeThreads),
      static_cast<std::size_t>(MergeFloats(heads, params.head_dim)) * sizeof(float),
      params.chained};
  return Launch(MergeKernel, shape, stream, params, heads);
}

}  // namespace millrace::cuda
