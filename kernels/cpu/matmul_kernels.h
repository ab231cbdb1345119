// The tables of matrix products that kernels/cpu/matmul.cc joins, one a level and kind of weights.
// Plain arrays: a file compiled for a level leaves nothing that runs before the choice of one.
// Internal to kernels/cpu.
#ifndef MILLRACE_KERNELS_CPU_MATMUL_KERNELS_H_
#define MILLRACE_KERNELS_CPU_MATMUL_KERNELS_H_

#include <array>

#include "kernels/cpu/matmul.h"

namespace millrace::cpu {

inline constexpr int kFloatTypes = 3;       // F32, F16, BF16
inline constexpr int kQuantisedTypes = 12;  // the others of kDTypes
static_assert(kFloatTypes + kQuantisedTypes == kDTypes.size());

namespace scalar {
extern const MatmulVariant kFloatMatmuls[kFloatTypes];
extern const MatmulVariant kQuantisedMatmuls[kQuantisedTypes];
}  // namespace scalar

namespace avx2 {
extern const MatmulVariant kFloatMatmuls[kFloatTypes];
extern const std::array<MatmulVariant, kQuantisedTypes> kQuantisedMatmuls;
}  // namespace avx2

namespace avx2_vnni {
extern const std::array<MatmulVariant, kQuantisedTypes> kQuantisedMatmuls;
}  // namespace avx2_vnni

namespace avx512 {
extern const MatmulVariant kFloatMatmuls[kFloatTypes];
extern const std::array<MatmulVariant, kQuantisedTypes> kQuantisedMatmuls;
}  // namespace avx512

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_MATMUL_KERNELS_H_
