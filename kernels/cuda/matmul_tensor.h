// The product for many rows (kernels/cuda/matmul.h): each warp unpacks a unit of 16 weight rows
// once and multiplies it with 16, 32 or 64 columns of activations by int8 matrix products, which
// all warps of a block share through shared memory. Weights go from memory to registers as they
// lie. A block's columns are of one expert; blocks that no rows fall to end at once.
//
// Host code; thread-safe.
#ifndef MILLRACE_KERNELS_CUDA_MATMUL_TENSOR_H_
#define MILLRACE_KERNELS_CUDA_MATMUL_TENSOR_H_

#include <cuda_runtime.h>

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_plan.h"

namespace millrace::cuda {

// REQUIRES: matrices of one quantised form; dense rows or sorted pairs.
cudaError_t LaunchMatmulTensor(const MatmulParams& params, const MatmulShape& shape,
                               cudaStream_t stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_MATMUL_TENSOR_H_
