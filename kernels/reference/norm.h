// The truth that root mean square norms are tested against, in double; the formula is in
// kernels/cpu/norm.h. Thread-safe.
#ifndef MILLRACE_KERNELS_REFERENCE_NORM_H_
#define MILLRACE_KERNELS_REFERENCE_NORM_H_

#include <span>
#include <vector>

namespace millrace::reference {

// x, weight and the result are [n].
std::vector<double> RmsNorm(std::span<const float> x, std::span<const float> weight, double eps);

}  // namespace millrace::reference

#endif  // MILLRACE_KERNELS_REFERENCE_NORM_H_
