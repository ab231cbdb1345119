// The functions behind the table of kernels/cpu/matmul.h, one a level and type. Internal to
// kernels/cpu. All take what MatmulFn takes and are thread-safe in the same way.
#ifndef MILLRACE_KERNELS_CPU_MATMUL_KERNELS_H_
#define MILLRACE_KERNELS_CPU_MATMUL_KERNELS_H_

#include "kernels/cpu/matmul.h"

namespace millrace::cpu {

namespace scalar {
void MatmulF32(const MatmulParams& p);
void MatmulF16(const MatmulParams& p);
void MatmulBF16(const MatmulParams& p);
void MatmulQ8_0(const MatmulParams& p);
void MatmulQ4_0(const MatmulParams& p);
void MatmulQ4_1(const MatmulParams& p);
void MatmulQ4_K(const MatmulParams& p);
void MatmulQ5_K(const MatmulParams& p);
void MatmulQ6_K(const MatmulParams& p);
}  // namespace scalar

namespace avx2 {
void MatmulF32(const MatmulParams& p);
void MatmulF16(const MatmulParams& p);
void MatmulBF16(const MatmulParams& p);
void MatmulQ8_0(const MatmulParams& p);
void MatmulQ4_0(const MatmulParams& p);
void MatmulQ4_1(const MatmulParams& p);
void MatmulQ4_K(const MatmulParams& p);
void MatmulQ5_K(const MatmulParams& p);
void MatmulQ6_K(const MatmulParams& p);
}  // namespace avx2

namespace avx512 {
void MatmulF32(const MatmulParams& p);
void MatmulF16(const MatmulParams& p);
void MatmulBF16(const MatmulParams& p);
void MatmulQ8_0(const MatmulParams& p);
void MatmulQ4_0(const MatmulParams& p);
void MatmulQ4_1(const MatmulParams& p);
void MatmulQ4_K(const MatmulParams& p);
void MatmulQ5_K(const MatmulParams& p);
void MatmulQ6_K(const MatmulParams& p);
}  // namespace avx512

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_MATMUL_KERNELS_H_
