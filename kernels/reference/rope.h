// The truth that rotary embeddings are tested against, in double, straight from the angles; the
// formula is in kernels/cpu/rope.h. Thread-safe.
#ifndef MILLRACE_KERNELS_REFERENCE_ROPE_H_
#define MILLRACE_KERNELS_REFERENCE_ROPE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/rope_pairing.h"

namespace millrace::reference {

// Rotates the first 2 * inverse_frequency.size() elements of `row`; the others stay.
std::vector<double> Rope(std::span<const float> row, std::int64_t position,
                         std::span<const double> inverse_frequency, RopePairing pairing);

}  // namespace millrace::reference

#endif  // MILLRACE_KERNELS_REFERENCE_ROPE_H_
