// Matrix product of weights, in the tiles of kernels/tile_layout.h, with activations:
//
//   Y[y_row(j), i] = sum over k of W[i, k] * X[x_row(j), k]      i in [n_begin, n_end), j in [0, m)
//
// Exact definition (docs/numerics.md, "Products"): float weights use 16 virtual lanes of fma over
// ascending k and one fixed reduction tree. Quantised weights sum integers in a block (sub-block
// scales included), then do one explicit fma a block and term in ascending k into one f32
// accumulator:
//   acc = fma(d_w * d_x, float(isum), acc), and where the type has minimums
//   acc = fma(-(dmin_w * d_x), float(msum), acc)   (Q4_1: + m_w * d_x with float(sum of q_x)).
// So a row's result depends on its own weights and activations alone: not on m, on the slice, on
// the thread or on the level.
//
// Thread-safe: a call writes Y[.., n_begin..n_end) only.
#ifndef MILLRACE_KERNELS_CPU_MATMUL_H_
#define MILLRACE_KERNELS_CPU_MATMUL_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "kernels/cpu/isa.h"
#include "kernels/dtype.h"

namespace millrace::cpu {

struct MatmulParams {
  const std::byte* w = nullptr;  // [n / tile_rows] tiles of the variant, w_tile_bytes apart
  std::int64_t w_tile_bytes = 0;
  std::int64_t k = 0;            // a multiple of the dtype's block_values
  std::int64_t n_begin = 0;      // this call's slice of output features; a multiple of tile_rows
  std::int64_t n_end = 0;        // not above the rows that the last tile holds
  const std::byte* x = nullptr;  // activation rows in the dtype's ActivationFormat
  std::int64_t x_row_bytes = 0;
  const std::int32_t* x_rows = nullptr;  // [m] row of x for each column; null: 0, 1, 2, ...
  std::int64_t m = 0;                    // number of activation rows
  float* y = nullptr;                    // [*][y_stride]
  std::int64_t y_stride = 0;             // floats between rows of y
  const std::int32_t* y_rows = nullptr;  // [m] row of y for each column; null: 0, 1, 2, ...
  // Weights that the same thread reads next, so that they are asked for in time; null: unknown.
  const std::byte* next_w = nullptr;
  // How memory is asked for, by products of few columns with VNNI; no result depends on it.
  bool reads_ahead_by_software = ReadsAheadBySoftware();
};

using MatmulFn = void (*)(const MatmulParams&);

struct MatmulVariant {
  Isa isa;
  DType dtype;
  std::int32_t tile_rows;  // of the weights it reads
  MatmulFn fn;
};

// Level and type, as in "avx2/Q4_K".
std::string Name(const MatmulVariant& variant);

// Every variant there is, most specific level first; tests and benchmarks walk the same list.
std::span<const MatmulVariant> MatmulVariants();

// The variant for `dtype` at the highest level not above `isa`.
const MatmulVariant& SelectMatmul(DType dtype, Isa isa);

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_MATMUL_H_
