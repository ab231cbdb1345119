// The truth that matrix products of every backend are tested against: one output at a time, in
// double, from DequantizeRow's weights and the activations as the kernel reads them. Thread-safe.
#ifndef MILLRACE_KERNELS_REFERENCE_MATMUL_H_
#define MILLRACE_KERNELS_REFERENCE_MATMUL_H_

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace millrace::reference {

struct Product {
  double value;      // sum of w[k] * x[k]
  double magnitude;  // sum of (|w[k] + min[k]| + |min[k]|) * |x[k]|; min is 0 where there is none
};

// `w` is a row of k weights, `x` a row of k activations in the dtype's ActivationFormat.
Product DotProduct(DType dtype, const std::byte* w, const std::byte* x, std::int64_t k);

// How far from DotProduct an output that follows kernels/cpu/matmul.h may be. With u = 2^-24:
// every term passes the rounding of its coefficient, of float(integer sum) and of at most `fmas`
// additions, each relative to a partial sum that `magnitude` bounds; the reference's own weights
// carry at most three roundings of the dequantisation, and one more u covers the products of these
// factors (fmas * u < 2^-10) and the arithmetic in double:
//   |y - value| <= (fmas + 2 + 3 + 1) * u * magnitude
// `fmas` is the length of the longest chain: blocks times terms for quantised types, k / 16 and the
// four levels of the tree for float ones.
double ErrorBound(DType dtype, std::int64_t k, double magnitude);

}  // namespace millrace::reference

#endif  // MILLRACE_KERNELS_REFERENCE_MATMUL_H_
