// The functions behind the tables of kernels/cpu/{norm,rope,moe,attention,exp}.h: the same set for
// each level, instances of the templates in *_body.h. Internal to kernels/cpu.
#ifndef MILLRACE_KERNELS_CPU_FLOAT_KERNELS_H_
#define MILLRACE_KERNELS_CPU_FLOAT_KERNELS_H_

#include <cstdint>

#include "kernels/cpu/attention.h"
#include "kernels/paged_kv.h"
#include "kernels/rope_pairing.h"

namespace millrace::cpu {

namespace scalar {
void RmsNorm(const float* x, const float* weight, std::int64_t n, float eps, float* y);
void Rope(float* row, std::int32_t rotary_dim, RopePairing pairing, const float* cosines,
          const float* sines);
void Route(const float* logits, std::int32_t num_experts, std::int32_t k, bool normalise,
           std::int32_t* experts, float* weights);
void Swiglu(const float* gate, const float* up, std::int64_t n, float* out);
void Combine(const float* x, const float* rows, std::int64_t row_stride, const float* weights,
             std::int32_t k, std::int64_t n, float* y);
void Add(const float* a, const float* b, std::int64_t n, float* y);
void KvAppendF16(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                 const float* key, const float* value);
void KvAppendF32(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                 const float* key, const float* value);
void KvAppendQ8_0(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                  const float* key, const float* value);
void KvAppendFp8(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                 const float* key, const float* value);
void AttentionPartialF16(const AttentionPartialParams& params);
void AttentionWholeF16(const AttentionPartialParams& params, float* out);
void AttentionPartialF32(const AttentionPartialParams& params);
void AttentionWholeF32(const AttentionPartialParams& params, float* out);
void AttentionPartialQ8_0(const AttentionPartialParams& params);
void AttentionWholeQ8_0(const AttentionPartialParams& params, float* out);
void AttentionPartialFp8(const AttentionPartialParams& params);
void AttentionWholeFp8(const AttentionPartialParams& params, float* out);
void AttentionMerge(const float* partials, std::int64_t stride, std::int32_t num_partitions,
                    std::int32_t head_dim, float* out);
void ExpArray(const float* x, std::int64_t n, float* y);
}  // namespace scalar

namespace avx2 {
void RmsNorm(const float* x, const float* weight, std::int64_t n, float eps, float* y);
void Rope(float* row, std::int32_t rotary_dim, RopePairing pairing, const float* cosines,
          const float* sines);
void Route(const float* logits, std::int32_t num_experts, std::int32_t k, bool normalise,
           std::int32_t* experts, float* weights);
void Swiglu(const float* gate, const float* up, std::int64_t n, float* out);
void Combine(const float* x, const float* rows, std::int64_t row_stride, const float* weights,
             std::int32_t k, std::int64_t n, float* y);
void Add(const float* a, const float* b, std::int64_t n, float* y);
void KvAppendF16(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                 const float* key, const float* value);
void KvAppendF32(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                 const float* key, const float* value);
void KvAppendQ8_0(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                  const float* key, const float* value);
void KvAppendFp8(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                 const float* key, const float* value);
void AttentionPartialF16(const AttentionPartialParams& params);
void AttentionWholeF16(const AttentionPartialParams& params, float* out);
void AttentionPartialF32(const AttentionPartialParams& params);
void AttentionWholeF32(const AttentionPartialParams& params, float* out);
void AttentionPartialQ8_0(const AttentionPartialParams& params);
void AttentionWholeQ8_0(const AttentionPartialParams& params, float* out);
void AttentionPartialFp8(const AttentionPartialParams& params);
void AttentionWholeFp8(const AttentionPartialParams& params, float* out);
void AttentionMerge(const float* partials, std::int64_t stride, std::int32_t num_partitions,
                    std::int32_t head_dim, float* out);
void ExpArray(const float* x, std::int64_t n, float* y);
}  // namespace avx2

namespace avx512 {
void RmsNorm(const float* x, const float* weight, std::int64_t n, float eps, float* y);
void Rope(float* row, std::int32_t rotary_dim, RopePairing pairing, const float* cosines,
          const float* sines);
void Route(const float* logits, std::int32_t num_experts, std::int32_t k, bool normalise,
           std::int32_t* experts, float* weights);
void Swiglu(const float* gate, const float* up, std::int64_t n, float* out);
void Combine(const float* x, const float* rows, std::int64_t row_stride, const float* weights,
             std::int32_t k, std::int64_t n, float* y);
void Add(const float* a, const float* b, std::int64_t n, float* y);
void KvAppendF16(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                 const float* key, const float* value);
void KvAppendF32(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                 const float* key, const float* value);
void KvAppendQ8_0(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                  const float* key, const float* value);
void KvAppendFp8(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                 const float* key, const float* value);
void AttentionPartialF16(const AttentionPartialParams& params);
void AttentionWholeF16(const AttentionPartialParams& params, float* out);
void AttentionPartialF32(const AttentionPartialParams& params);
void AttentionWholeF32(const AttentionPartialParams& params, float* out);
void AttentionPartialQ8_0(const AttentionPartialParams& params);
void AttentionWholeQ8_0(const AttentionPartialParams& params, float* out);
void AttentionPartialFp8(const AttentionPartialParams& params);
void AttentionWholeFp8(const AttentionPartialParams& params, float* out);
void AttentionMerge(const float* partials, std::int64_t stride, std::int32_t num_partitions,
                    std::int32_t head_dim, float* out);
void ExpArray(const float* x, std::int64_t n, float* y);
}  // namespace avx512

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_FLOAT_KERNELS_H_
