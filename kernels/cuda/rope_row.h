// The steps of one head's row of one token on its way to attention (kernels/cuda/rope_append.h), by
// half a warp, whose 16 threads are the 16 virtual lanes of the norm's sum: for the kernel of its
// own (rope_append.cu) and for the end of a product (tail_block.h). The row lies in shared memory,
// since rotation pairs elements of different lanes and the cache takes neighbours together.
//
// Device code; all 32 threads of a warp call together, whatever their halves' rows are.
#ifndef MILLRACE_KERNELS_CUDA_ROPE_ROW_H_
#define MILLRACE_KERNELS_CUDA_ROPE_ROW_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/kv_rows.h"
#include "kernels/cuda/lanes16.h"
#include "kernels/cuda/quantize.h"
#include "kernels/cuda/rope_append.h"
#include "kernels/fp8.h"

namespace millrace::cuda {

enum class RopeRole : std::uint8_t { kQuery, kKey, kValue, kNone };

// One row of work, the same for the 16 threads of a half; a half without one goes along (kNone).
struct RopeJob {
  RopeRole role;
  std::int64_t token;
  int head;           // among queries, or among keys and values
  const float* from;  // [head_dim]
};

__device__ inline RopeJob RopeJobOf(const RopeAppendParams& p, std::int64_t token, int row) {
  const int dim = p.kv.layout.head_dim;
  const int kv_heads = p.kv.layout.num_kv_heads;
  if (row < p.num_heads) {
    return {RopeRole::kQuery, token, row, p.q + token * p.q_stride + std::int64_t{row} * dim};
  }
  row -= p.num_heads;
  if (row < kv_heads) {
    return {RopeRole::kKey, token, row, p.k + token * p.k_stride + std::int64_t{row} * dim};
  }
  row -= kv_heads;
  if (row < kv_heads) {
    return {RopeRole::kValue, token, row, p.v + token * p.v_stride + std::int64_t{row} * dim};
  }
  return {RopeRole::kNone, token, 0, nullptr};
}

// What rows of a token need of its position and of the model, in shared or global memory.
struct RopeTables {
  const float* cosines;  // [rotary_dim / 2]
  const float* sines;    // [rotary_dim / 2]
  const float* q_norm;   // [head_dim]
  const float* k_norm;   // [head_dim]
};

// All 32 threads: both halves of a warp take the sum together, whatever their roles.
__device__ inline void LoadAndNorm(const RopeAppendParams& p, const RopeJob& job, int lane,
                                   const RopeTables& tables, float* row) {
  const int dim = p.kv.layout.head_dim;
  float sum = 0.0F;
  for (int i = lane; i < dim; i += kLanes16) {
    const float value = job.role == RopeRole::kNone ? 0.0F : job.from[i];
    row[i] = value;
    sum = Fma(value, value, sum);
  }
  sum = Sum16(sum);
  const bool query = job.role == RopeRole::kQuery && p.q_norm != nullptr;
  const bool key = job.role == RopeRole::kKey && p.k_norm != nullptr;
  if (!query && !key) return;
  const float* norm = query ? tables.q_norm : tables.k_norm;
  const float factor = 1.0F / sqrtf(sum / static_cast<float>(dim) + p.eps);
  for (int i = lane; i < dim; i += kLanes16) row[i] = (row[i] * factor) * norm[i];
}

__device__ inline void Rotate(const RopeAppendParams& p, const RopeJob& job, int lane,
                              const RopeTables& tables, float* row) {
  if (job.role != RopeRole::kQuery && job.role != RopeRole::kKey) return;
  const int half = p.rotary_dim / 2;
  const bool neox = p.pairing == RopePairing::kNeox;
  for (int i = lane; i < half; i += kLanes16) {
    float* a = row + (neox ? i : 2 * i);
    float* b = neox ? a + half : a + 1;
    const float x = *a;
    const float y = *b;
    const float cosine = tables.cosines[i];
    const float sine = tables.sines[i];
    *a = Fma(x, cosine, -(y * sine));
    *b = Fma(y, cosine, x * sine);
  }
}

__device__ inline void StoreFloats(const float* row, int dim, int lane, void* out) {
  for (int i = lane; i < dim / 4; i += kLanes16) {
    static_cast<Float4*>(out)[i] = reinterpret_cast<const Float4*>(row)[i];
  }
}

// All 32 threads, of which those with `store` false only go along.
__device__ inline void StoreKvRow(KvF32, const float* row, int dim, int lane, bool store,
                                  std::byte* out) {
  if (store) StoreFloats(row, dim, lane, out);
}

__device__ inline void StoreKvRow(KvF16, const float* row, int dim, int lane, bool store,
                                  std::byte* out) {
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

__device__ inline void StoreKvRow(KvFp8, const float* row, int dim, int lane, bool store,
                                  std::byte* out) {
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
__device__ inline std::uint32_t QuantiseKv(float x, float inverse) {
  constexpr float kShift = 0x1.8p23F;  // rounds to an integer, ties to even
  if (inverse == 0.0F) return 0;
  const float scaled = (x * inverse + kShift) - kShift;
  const float clamped = scaled > 127.0F ? 127.0F : (scaled < -127.0F ? -127.0F : scaled);
  return static_cast<std::uint32_t>(static_cast<int>(clamped)) & 0xFFU;
}

// Two values of each block a thread.
__device__ inline void StoreKvRow(KvQ8_0, const float* row, int dim, int lane, bool store,
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

// `row` is the half's own shared memory, [head_dim], aligned to 16. A query goes back to its place.
__device__ inline void NormAndRotate(const RopeAppendParams& p, const RopeJob& job,
                                     const RopeTables& tables, float* row) {
  const int dim = p.kv.layout.head_dim;
  const int lane = static_cast<int>(threadIdx.x) % kLanes16;
  LoadAndNorm(p, job, lane, tables, row);
  LetNextBegin();
  SyncWarp();
  Rotate(p, job, lane, tables, row);
  SyncWarp();
  if (job.role == RopeRole::kQuery) {
    StoreFloats(row, dim, lane, p.q + job.token * p.q_stride + std::int64_t{job.head} * dim);
  }
}
// A key or a value goes into the cache, at `slot` of it.
template <typename Kv>
__device__ inline void AppendRow(const RopeAppendParams& p, const RopeJob& job, std::int32_t slot,
                                 const float* row) {
  const KvLayout& layout = p.kv.layout;
  const bool to_cache = job.role == RopeRole::kKey || job.role == RopeRole::kValue;
  std::byte* out = nullptr;
  if (to_cache) {
    out = KvRows(p.kv, slot / layout.block_size, job.head, job.role == RopeRole::kValue) +
          std::int64_t{slot % layout.block_size} * Kv::RowBytes(layout.head_dim);
  }
  StoreKvRow(Kv{}, row, layout.head_dim, static_cast<int>(threadIdx.x) % kLanes16, to_cache, out);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_ROPE_ROW_H_
