// Half a warp takes one head's row of one token; a block takes rows of one token.
#include "kernels/cuda/rope_append.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/kv_rows.h"
#include "kernels/cuda/lanes16.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/rope_row.h"

namespace millrace::cuda {
namespace {

constexpr int kRopeThreads = 128;
constexpr int kRowsPerBlock = kRopeThreads / kLanes16;

// Shared memory of a block: its rows, and what they all need.
struct Space {
  float* rows;     // [kRowsPerBlock][head_dim], aligned to 16
  float* cosines;  // as RopeTables
  float* sines;
  float* q_norm;
  float* k_norm;
};
constexpr std::size_t SharedBytes(int dim, int rotary_dim) {
  return static_cast<std::size_t>((kRowsPerBlock + 2) * dim + rotary_dim) * sizeof(float);
}
__device__ Space SpaceOf(int dim, int rotary_dim) {
  Space s;
  s.rows = BlockShared<float>();
  s.cosines = s.rows + kRowsPerBlock * dim;
  s.sines = s.cosines + rotary_dim / 2;
  s.q_norm = s.sines + rotary_dim / 2;
  s.k_norm = s.q_norm + dim;
  return s;
}

__device__ void LoadShared(const RopeAppendParams& p, int token, const Space& s) {
  const int thread = static_cast<int>(threadIdx.x);
  const int half = p.rotary_dim / 2;
  const std::int64_t angles = std::int64_t{p.positions[token]} * half;
  for (int i = thread; i < half; i += kRopeThreads) {
    s.cosines[i] = p.cosines[angles + i];
    s.sines[i] = p.sines[angles + i];
  }
  for (int i = thread; i < p.kv.layout.head_dim; i += kRopeThreads) {
    if (p.q_norm != nullptr) s.q_norm[i] = p.q_norm[i];
    if (p.k_norm != nullptr) s.k_norm[i] = p.k_norm[i];
  }
}

template <typename Kv>
__global__ void __launch_bounds__(kRopeThreads) RopeAppendKernel(RopeAppendParams p) {
  const int token = static_cast<int>(blockIdx.x);
  if (token >= *p.num_tokens) {
    AwaitPrevious();
    return;
  }
  const int dim = p.kv.layout.head_dim;
  const Space s = SpaceOf(dim, p.rotary_dim);
  LoadShared(p, token, s);
  const std::int32_t slot = p.kv_slots[token];
  AwaitPrevious();
  SyncBlock();
  const int half = static_cast<int>(threadIdx.x) / kLanes16;
  const RopeJob job = RopeJobOf(p, token, static_cast<int>(blockIdx.y) * kRowsPerBlock + half);
  float* row = s.rows + half * dim;
  NormAndRotate(p, job, {s.cosines, s.sines, s.q_norm, s.k_norm}, row);
  AppendRow<Kv>(p, job, slot, row);
}

}  // namespace

cudaError_t LaunchRopeAppend(const RopeAppendParams& params, cudaStream_t stream) {
  const KvLayout& layout = params.kv.layout;
  if (!CanAttend(layout.dtype, layout.head_dim) || params.rotary_dim % 2 != 0 ||
      params.rotary_dim > layout.head_dim) {
    return cudaErrorInvalidValue;
  }
  const int rows = params.num_heads + 2 * layout.num_kv_heads;
  const int blocks = (rows + kRowsPerBlock - 1) / kRowsPerBlock;
  const LaunchShape shape = {
      dim3(static_cast<unsigned>(params.max_tokens), static_cast<unsigned>(blocks)),
      dim3(kRopeThreads), SharedBytes(layout.head_dim, params.rotary_dim), params.chained};
  return WithKvType(layout.dtype, [&](auto kv) {
    return Launch(RopeAppendKernel<decltype(kv)>, shape, stream, params);
  });
}

}  // namespace millrace::cuda
