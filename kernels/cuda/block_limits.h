// What blocks of kernels may have on every GPU that we build for. Leaf header; needs no CUDA.
#ifndef MILLRACE_KERNELS_CUDA_BLOCK_LIMITS_H_
#define MILLRACE_KERNELS_CUDA_BLOCK_LIMITS_H_

#include <cstdint>

namespace millrace::cuda {

// Shared memory of a block at most: what sm_86, 89 and 120 grant one (sm_80 163 KB, sm_90 227 KB).
inline constexpr std::int64_t kBlockSharedBytes = std::int64_t{99} << 10;

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_BLOCK_LIMITS_H_
