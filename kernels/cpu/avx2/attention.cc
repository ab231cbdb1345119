#include "kernels/cpu/attention_body.h"

#include "kernels/cpu/float_kernels.h"
#include "kernels/cpu/lanes16_avx2.h"

namespace millrace::cpu::avx2 {

void KvAppendF16(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                 const float* key, const float* value) {
  AppendRow<LanesAvx2, HalfBits>(kv, block, head, slot, key, value);
}

void KvAppendF32(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                 const float* key, const float* value) {
  AppendRow<LanesAvx2, float>(kv, block, head, slot, key, value);
}

void KvAppendQ8_0(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                  const float* key, const float* value) {
  AppendRow<LanesAvx2, BlockQ8_0>(kv, block, head, slot, key, value);
}

void KvAppendFp8(const KvLayerView& kv, std::int32_t block, std::int32_t head, std::int32_t slot,
                 const float* key, const float* value) {
  AppendRow<LanesAvx2, Fp8>(kv, block, head, slot, key, value);
}

void AttentionPartialF16(const AttentionPartialParams& params) {
  PartialUnit<LanesAvx2, HalfBits>(params);
}

void AttentionPartialF32(const AttentionPartialParams& params) {
  PartialUnit<LanesAvx2, float>(params);
}

void AttentionPartialQ8_0(const AttentionPartialParams& params) {
  PartialUnit<LanesAvx2, BlockQ8_0>(params);
}

void AttentionPartialFp8(const AttentionPartialParams& params) {
  PartialUnit<LanesAvx2, Fp8>(params);
}

void AttentionWholeF16(const AttentionPartialParams& params, float* out) {
  WholeUnit<LanesAvx2, HalfBits>(params, out);
}

void AttentionWholeF32(const AttentionPartialParams& params, float* out) {
  WholeUnit<LanesAvx2, float>(params, out);
}

void AttentionWholeQ8_0(const AttentionPartialParams& params, float* out) {
  WholeUnit<LanesAvx2, BlockQ8_0>(params, out);
}

void AttentionWholeFp8(const AttentionPartialParams& params, float* out) {
  WholeUnit<LanesAvx2, Fp8>(params, out);
}

void AttentionMerge(const float* partials, std::int64_t stride, std::int32_t num_partitions,
                    std::int32_t head_dim, float* out) {
  MergeRow<LanesAvx2>(partials, stride, num_partitions, head_dim, out);
}

}  // namespace millrace::cpu::avx2
