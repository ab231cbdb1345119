// Rows of weights that were laid out (kernels/cuda/weight_layout.h) as rows of 16-bit floats in
// order, for a library's matrix product: what the type's block stands for, in the float operations
// of kernels/dequantize.h, rounded to nearest even. F16 and BF16 weights only change their order.
// F32 weights have no such form: rounding them would lose what they were kept in F32 for.
//
// Host code; thread-safe. Owns nothing.
#ifndef MILLRACE_KERNELS_CUDA_DEQUANTIZE_H_
#define MILLRACE_KERNELS_CUDA_DEQUANTIZE_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/half_rows.h"
#include "kernels/cuda/weight_layout.h"

namespace millrace::cuda {

struct DequantizeParams {
  WeightForm form = WeightForm::kQ4_K;
  const std::byte* w = nullptr;  // of the matrix; nobody writes it while a step runs
  std::int64_t k = 0;
  std::int32_t first_row = 0;  // a multiple of kTileRows
  std::int32_t rows = 0;
  std::uint16_t* out = nullptr;  // [rows][HalfStride(k)] of HalfTypeOf(form); 16-byte aligned
  bool chained = false;          // kernels/cuda/launch.h
};

// cudaErrorInvalidValue for F32.
cudaError_t LaunchDequantize(const DequantizeParams& params, cudaStream_t stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_DEQUANTIZE_H_
