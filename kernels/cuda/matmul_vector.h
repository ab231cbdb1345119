// The product for few rows (kernels/cuda/matmul.h): reading the weights is all that takes time, so
// the warps of a block share k and all of a small matrix is under way at once.
//
// Each warp multiplies whole units of 16 rows and leaves their integers in shared memory; after a
// barrier a thread for each output does the float steps in ascending k. One column goes by dp4a,
// up to eight by matrix products of 16 x 8, of which columns that are not there cost nothing.
//
// Host code; thread-safe.
#ifndef MILLRACE_KERNELS_CUDA_MATMUL_VECTOR_H_
#define MILLRACE_KERNELS_CUDA_MATMUL_VECTOR_H_

#include <cuda_runtime.h>

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_plan.h"
#include "kernels/cuda/matmul_tail.h"

namespace millrace::cuda {

// REQUIRES: quantised forms that VectorServes; dense rows or unsorted pairs, the latter with
// shape.columns 1. With a tail where that is not null, which PlanTail found to fit.
cudaError_t LaunchMatmulVector(const MatmulParams& params, const MatmulShape& shape,
                               cudaStream_t stream, const FusedTail* tail = nullptr);

// Whether one launch takes matrices of both forms.
bool VectorServes(WeightForm first, WeightForm second);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_MATMUL_VECTOR_H_
