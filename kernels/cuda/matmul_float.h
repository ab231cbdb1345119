// The product of float weights (kernels/cuda/matmul.h) by the 16 lanes of the numerics: half a warp
// holds the lanes of a few outputs, each thread one lane of each, and reads weights and activations
// of four or eight steps at once.
//
// Host code; thread-safe.
#ifndef MILLRACE_KERNELS_CUDA_MATMUL_FLOAT_H_
#define MILLRACE_KERNELS_CUDA_MATMUL_FLOAT_H_

#include <cuda_runtime.h>

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_plan.h"

namespace millrace::cuda {

// REQUIRES: matrices of one float form; unsorted pairs only with shape.columns 1.
cudaError_t LaunchMatmulFloat(const MatmulParams& params, const MatmulShape& shape,
                              cudaStream_t stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_MATMUL_FLOAT_H_
