// Cosines and sines of a position, for every backend: in double by the C library, rounded to float
// (docs/numerics.md). Leaf header. Thread-safe (pure).
#ifndef MILLRACE_KERNELS_ROPE_ANGLES_H_
#define MILLRACE_KERNELS_ROPE_ANGLES_H_

#include <cstdint>
#include <span>

namespace millrace {

// cosines[i] = float(magnitude * cos(position * inverse_frequency[i])), computed in double; sines
// alike. inverse_frequency, cosines and sines are [rotary_dim / 2].
void RopeAngles(std::int64_t position, std::span<const double> inverse_frequency, double magnitude,
                float* cosines, float* sines);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_ROPE_ANGLES_H_
