// Rows of 16-bit floats in order, which a library's matrix product reads, and what comes before and
// after such a product: activations become such rows, and its float32 result gets its scale, its
// bias and the residual. For the option that gives the CPU's bits up (docs/numerics.md, "Products
// by cuBLAS"). Weights: kernels/cuda/dequantize.h.
//
// Host code, but for the constexpr part; thread-safe. Owns nothing.
#ifndef MILLRACE_KERNELS_CUDA_HALF_ROWS_H_
#define MILLRACE_KERNELS_CUDA_HALF_ROWS_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/activations.h"
#include "kernels/cuda/weight_layout.h"

namespace millrace::cuda {

enum class HalfType : std::uint8_t {
  kF16,   // 11 bits, up to 65 504
  kBF16,  // 8 bits, the range of float32
};

// What weights of a form and the activations for them become. F16 weights stay what they are, and
// activations get eight times the precision of BF16's; a scale for each row keeps those in range.
// All others are BF16: what quantised weights stand for has no bounds that F16 would hold.
constexpr HalfType HalfTypeOf(WeightForm form) {
  return form == WeightForm::kF16 ? HalfType::kF16 : HalfType::kBF16;
}

// Values from one row of k to the next: each begins at a multiple of 16 bytes, as the matrix
// instructions' loads want. Values from k on have no meaning.
constexpr std::int64_t HalfStride(std::int64_t k) { return RoundUp(k, 8); }

// Row r of `out` is x's, rounded to nearest even. kF16: x times a power of two that brings the
// row's largest magnitude into [2^14, 2^15), and scales[r] is the inverse of that power. A row with
// a NaN or an infinity has scale 1; its faults stay.
struct HalfRowsParams {
  const std::byte* x = nullptr;  // [rows] of floats, as kernels/cuda/activations.h has them
  std::int64_t k = 0;
  std::int32_t rows = 0;
  HalfType type = HalfType::kBF16;
  std::uint16_t* out = nullptr;  // [rows][HalfStride(k)]
  float* scales = nullptr;       // [rows], for kF16 alone
  bool chained = false;          // kernels/cuda/launch.h
};

cudaError_t LaunchHalfRows(const HalfRowsParams& params, cudaStream_t stream);

// v = product[r][i] * scales[r] + bias[i], without what is null, is added to add_to[r][i] or, where
// that is null, takes the product's place.
struct FinishProductParams {
  float* product = nullptr;  // [rows][stride]
  std::int64_t stride = 0;
  const float* scales = nullptr;  // [rows] or null
  const float* bias = nullptr;    // [n] or null
  float* add_to = nullptr;        // [rows][add_stride] or null
  std::int64_t add_stride = 0;
  std::int32_t rows = 0;
  std::int32_t n = 0;
  bool chained = false;
};

cudaError_t LaunchFinishProduct(const FinishProductParams& params, cudaStream_t stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_HALF_ROWS_H_
