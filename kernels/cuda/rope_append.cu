// Half a warp takes one head's row of one token: its 16 threads are the 16 virtual lanes of the
// norm's sum. The row lies in shared memory, since rotation pairs elements of different lanes and
// the cache takes neighbours together.
#include "kernels/cuda/rope_append.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/kv_rows.h"
#include "kernels/cuda/lanes16.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/quantize.h"
#include "kernels/fp8.h"

namespace millrace::cuda {
namespace {

constexpr int kRopeThreads = 128;
constexpr int kRowsPerBlock = kRopeThreads / kLanes16;

enum class Role : std::uint8_t { kQuery, kKey, kValue, kNone };

// One row of work, the same for the 16 threads of a half.
struct Job {
  Role role;
  std::int64_t token;
  int head;           // among queries, or among keys and values
  const float* from;  // [head_dim]
};

__device__ Job JobOf(const RopeAppendParams& p, int token, int row) {
  const int dim = p.kv.layout.head_dim;
  const int kv_heads = p.kv.layout.num_kv_heads;
  if (row < p.num_heads) {
    return {Role::kQuery, token, row, p.q + token * p.q_stride + std::int64_t{row} * dim};
  }
  row -= p.num_heads;
  if (row < kv_heads) {
    return {Role::kKey, token, row, p.k + token * p.k_stride + std::int64_t{row} * dim};
  }
  row -= kv_heads;
  if (row < kv_heads) {
    return {Role::kValue, token, row, p.v + token * p.v_stride + std::int64_t{row} * dim};
  }
  return {Role::kNone, token, 0, nullptr};
}

// Shared memory of a block: its rows, and what they all need of the token's position and of the
// model.
struct Space {
  float* rows;     // [kRowsPerBlock][head_dim], aligned to 16
  float* cosines;  // [rotary_dim / 2]
  float* sines;    // [rotary_dim / 2]
  float* q_norm;   // [head_dim]
  float* k_norm;   // [head_dim]
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

// All 32 threads: both halves of a warp take the sum together, whatever their roles.
__device__ void LoadAndNorm(const RopeAppendParams& p, const Job& job, int lane, const Space& s,
                            float* row) {
  const int dim = p.kv.layout.head_dim;
  float sum = 0.0F;
  for (int i = lane; i < dim; i += kLanes16) {
    const float value = job.role == Role::kNone ? 0.0F : job.from[i];
    row[i] = value;
    sum = Fma(value, value, sum);
  }
  sum = Sum16(sum);
  const bool query = job.role == Role::kQuery && p.q_norm != nullptr;
  const bool key = job.role == Role::kKey && p.k_norm != nullptr;
  if (!query && !key) return;
  const float* norm = query ? s.q_norm : s.k_norm;
  const float factor = 1.0F / sqrtf(sum / static_cast<float>(dim) + p.eps);
  for (int i = lane; i < dim; i += kLanes16) row[i] = (row[i] * factor) * norm[i];
}

__device__ void Rotate(const RopeAppendParams& p, const Job& job, int lane, const Space& s,
                       float* row) {
  if (job.role != Role::kQuery && job.role != Role::kKey) return;
  const int half = p.rotary_dim / 2;
  const bool neox = p.pairing == RopePairing::kNeox;
  for (int i = lane; i < half; i += kLanes16) {
    float* a = row + (neox ? i : 2 * i);
    float* b = neox ? a + half : a + 1;
    const float x = *a;
    const float y = *b;
    const float cosine = s.cosines[i];
    const float sine = s.sines[i];
    *a = Fma(x, cosine, -(y * sine));
    *b = Fma(y, cosine, x * sine);
  }
}

__device__ void StoreFloats(const float* row, int dim, int lane, void* out) {
  for (int i = lane; i < dim / 4; i += kLanes16) {
    static_cast<Float4*>(out)[i] = reinterpret_cast<const Float4*>(row)[i];
  }
}

// All 32 threads, of which those with `store` false only go along.
__device__ void StoreKvRow(KvF32, const float* row, int dim, int lane, bool store, std::byte* out) {
  if (store) StoreFloats(row, dim, lane, out);
}

__device__ void StoreKvRow(KvF16, const float* row, int dim, int lane, bool store, std::byte* out) {
  if (!store) return;
  for (int i = lane; i < dim / 8; i += kLanes16) {
    Bytes16 halves;
    for (int j = 0; j < 4; ++j) {
      const std::uint32_t low = FloatToHalf(row[8 * i + 2 * j]);
      const std::uint32_t high = FloatToHalf(row[8 * i + 2 * j + 1]);
      halves.word[j] = low | (high << 16);
    }
    reinterpret_cast<Bytes16*>(out)[i] = halves;
  }
}

__device__ void StoreKvRow(KvFp8, const float* row, int dim, int lane, bool store, std::byte* out) {
  if (!store) return;
  for (int i = lane; i < dim / 4; i += kLanes16) {
    const Float4 x = reinterpret_cast<const Float4*>(row)[i];
    std::uint32_t word = 0;
    for (int j = 0; j < 4; ++j) {
      word |= static_cast<std::uint32_t>(FloatToFp8(x.value[j]).bits) << (8 * j);
    }
    reinterpret_cast<std::uint32_t*>(out)[i] = word;
  }
}

// Value i of a block of q8_0 by the inverse of its scale; kernels/kv_quantize.h.
__device__ std::uint32_t QuantiseKv(float x, float inverse) {
  constexpr float kShift = 0x1.8p23F;  // rounds to an integer, ties to even
  if (inverse == 0.0F) return 0;
  const float scaled = (x * inverse + kShift) - kShift;
  const float clamped = scaled > 127.0F ? 127.0F : (scaled < -127.0F ? -127.0F : scaled);
  return static_cast<std::uint32_t>(static_cast<int>(clamped)) & 0xFFU;
}

// Two values of each block a thread.
__device__ void StoreKvRow(KvQ8_0, const float* row, int dim, int lane, bool store,
                           std::byte* out) {
  constexpr std::uint32_t kInfinity = 0x7F800000U;
  for (int b = 0; b < dim / 32; ++b) {
    const float x = row[32 * b + 2 * lane];
    const float y = row[32 * b + 2 * lane + 1];
    const std::uint32_t x_bits = FloatBits(x) & 0x7FFFFFFFU;
    const std::uint32_t y_bits = FloatBits(y) & 0x7FFFFFFFU;
    const std::uint32_t max = MaxAmong(x_bits > y_bits ? x_bits : y_bits, kLanes16);
    const std::uint16_t half =
        max >= kInfinity ? std::uint16_t{0x7E00} : FloatToHalf(BitsFloat(max) / 127.0F);
    const float d = HalfToFloat(half);
    const float inverse = d > 0.0F ? 1.0F / d : 0.0F;  // a NaN is not above 0 either
    if (!store) continue;
    auto* block = reinterpret_cast<std::uint16_t*>(out + b * int{sizeof(BlockQ8_0)});
    if (lane == 0) block[0] = half;
    block[1 + lane] =
        static_cast<std::uint16_t>(QuantiseKv(x, inverse) | (QuantiseKv(y, inverse) << 8));
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
  const std::int32_t at = p.kv_slots[token];
  AwaitPrevious();
  SyncBlock();
  const int half = static_cast<int>(threadIdx.x) / kLanes16;
  const int lane = static_cast<int>(threadIdx.x) % kLanes16;
  const Job job = JobOf(p, token, static_cast<int>(blockIdx.y) * kRowsPerBlock + half);
  float* row = s.rows + half * dim;
  LoadAndNorm(p, job, lane, s, row);
  LetNextBegin();
  SyncWarp();
  Rotate(p, job, lane, s, row);
  SyncWarp();
  if (job.role == Role::kQuery) {
    StoreFloats(row, dim, lane, p.q + job.token * p.q_stride + std::int64_t{job.head} * dim);
  }
  const bool to_cache = job.role == Role::kKey || job.role == Role::kValue;
  const KvLayout& layout = p.kv.layout;
  std::byte* out = nullptr;
  if (to_cache) {
    const std::int64_t slot = at % layout.block_size;
    out = KvRows(p.kv, at / layout.block_size, job.head, job.role == Role::kValue) +
          slot * Kv::RowBytes(dim);
  }
  StoreKvRow(Kv{}, row, dim, lane, to_cache, out);
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
