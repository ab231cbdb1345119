// The functions behind the tables of kernels/cpu/{norm,rope,moe,attention,exp}.h: the same set for
// each level, instances of the templates in *_body.h. Internal to kernels/cpu.
#ifndef MILLRACE_KERNELS_CPU_FLOAT_KERNELS_H_
#define MILLRACE_KERNELS_CPU_FLOAT_KERNELS_H_

#include <array>
#include <cstdint>

#include "kernels/cpu/attention.h"
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
extern const std::array<AttentionVariant, kKvDTypes> kAttention;
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
extern const std::array<AttentionVariant, kKvDTypes> kAttention;
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
extern const std::array<AttentionVariant, kKvDTypes> kAttention;
void ExpArray(const float* x, std::int64_t n, float* y);
}  // namespace avx512

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_FLOAT_KERNELS_H_
