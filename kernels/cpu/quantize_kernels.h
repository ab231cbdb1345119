// The functions behind the table of kernels/cpu/quantize.h. Internal to kernels/cpu.
#ifndef MILLRACE_KERNELS_CPU_QUANTIZE_KERNELS_H_
#define MILLRACE_KERNELS_CPU_QUANTIZE_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace millrace::cpu {

namespace scalar {
void QuantizeRowQ8x32(const float* x, std::int64_t k, std::byte* out);
void QuantizeRowQ8x256(const float* x, std::int64_t k, std::byte* out);
}  // namespace scalar

namespace avx2 {
void QuantizeRowQ8x32(const float* x, std::int64_t k, std::byte* out);
void QuantizeRowQ8x256(const float* x, std::int64_t k, std::byte* out);
}  // namespace avx2

namespace avx512 {
void QuantizeRowQ8x32(const float* x, std::int64_t k, std::byte* out);
void QuantizeRowQ8x256(const float* x, std::int64_t k, std::byte* out);
}  // namespace avx512

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_QUANTIZE_KERNELS_H_
