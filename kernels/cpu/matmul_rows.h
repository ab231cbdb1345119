// How matmul kernels find their rows. Internal to kernels/cpu; static functions, so that every
// level has its own copy.
#ifndef MILLRACE_KERNELS_CPU_MATMUL_ROWS_H_
#define MILLRACE_KERNELS_CPU_MATMUL_ROWS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/matmul.h"

namespace millrace::cpu {

// REQUIRES: tiles of one row.
static inline const std::byte* WeightRow(const MatmulParams& p, std::int64_t i) {
  return p.w + i * p.w_tile_bytes;
}

static inline const std::byte* ActivationRow(const MatmulParams& p, std::int64_t j) {
  return p.x + (p.x_rows != nullptr ? p.x_rows[j] : j) * p.x_row_bytes;
}

static inline float* OutputRow(const MatmulParams& p, std::int64_t j) {
  return p.y + (p.y_rows != nullptr ? p.y_rows[j] : j) * p.y_stride;
}

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_MATMUL_ROWS_H_
