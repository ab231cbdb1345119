// Query, key and value rows of a step on their way to attention: norm of each head's row where the
// model has one, rotary embedding of queries and keys, and keys and values into the paged cache in
// its type. To the bit kernels/cpu/{norm,rope}.h and the append of kernels/cpu/attention.h
// (payloads of NaNs apart). Host code; thread-safe. Owns nothing.
#ifndef MILLRACE_KERNELS_CUDA_ROPE_APPEND_H_
#define MILLRACE_KERNELS_CUDA_ROPE_APPEND_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/paged_kv.h"
#include "kernels/rope_pairing.h"

namespace millrace::cuda {

// Rows of a head are multiples of this many values, so that they are read and written in 16 bytes;
// for q8_0 of 32 (KvHeadDimMultiple). Other models are refused (cudaErrorInvalidValue).
inline constexpr std::int32_t kHeadDimMultiple = 16;
inline constexpr std::int32_t kMaxHeadDim = 256;

constexpr bool CanAttend(KvDType dtype, std::int32_t head_dim) {
  return head_dim > 0 && head_dim <= kMaxHeadDim && head_dim % kHeadDimMultiple == 0 &&
         head_dim % KvHeadDimMultiple(dtype) == 0;
}

// All pointers are the device's, aligned to 16; strides are in floats, multiples of 4. Of a chained
// launch the kernel just before may write q, k and v, but none of the rest.
struct RopeAppendParams {
  float* q = nullptr;  // [*num_tokens][num_heads][head_dim], changed in place
  std::int64_t q_stride = 0;
  const float* k = nullptr;  // [*num_tokens][num_kv_heads][head_dim]
  std::int64_t k_stride = 0;
  const float* v = nullptr;  // as k
  std::int64_t v_stride = 0;
  std::int32_t num_heads = 0;
  const float* q_norm = nullptr;  // [head_dim] or null
  const float* k_norm = nullptr;  // [head_dim] or null
  float eps = 0.0F;
  RopePairing pairing = RopePairing::kNeox;
  std::int32_t rotary_dim = 0;              // even, at most head_dim
  const float* cosines = nullptr;           // [positions][rotary_dim / 2], of kernels/rope_angles.h
  const float* sines = nullptr;             // as cosines
  const std::int32_t* positions = nullptr;  // [*num_tokens]
  // Where each token's key and value go: block * block_size + position % block_size.
  const std::int32_t* kv_slots = nullptr;    // [*num_tokens]
  KvLayerView kv;                            // its data is in device memory
  const std::int32_t* num_tokens = nullptr;  // [1], at most max_tokens
  std::int32_t max_tokens = 0;
  bool chained = false;  // kernels/cuda/launch.h
};

cudaError_t LaunchRopeAppend(const RopeAppendParams& params, cudaStream_t stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_ROPE_APPEND_H_
