// Weights from their block formats to f32, bit for bit as the Python package `gguf` does it
// (float32 operations in the same order). Used for embedding rows, norms, references and tests.
// Thread-safe.
#ifndef MILLRACE_KERNELS_DEQUANTIZE_H_
#define MILLRACE_KERNELS_DEQUANTIZE_H_

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/quant_blocks.h"

namespace millrace {

float HalfToFloat(HalfBits half);      // exact, NaN payloads kept quiet
HalfBits FloatToHalf(float value);     // round to nearest, ties to even; as F16C does
float Bfloat16ToFloat(HalfBits bits);  // exact

// Writes k values to `out` from RowBytes(dtype, k) bytes at `row`.
// REQUIRES: k is a multiple of the type's block_values.
void DequantizeRow(DType dtype, const std::byte* row, std::int64_t k, float* out);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_DEQUANTIZE_H_
