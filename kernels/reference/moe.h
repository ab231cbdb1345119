// The truth that the operations around the experts are tested against, in double; the definitions
// are in kernels/cpu/moe.h. Thread-safe.
#ifndef MILLRACE_KERNELS_REFERENCE_MOE_H_
#define MILLRACE_KERNELS_REFERENCE_MOE_H_

#include <cstdint>
#include <span>
#include <vector>

namespace millrace::reference {

// Softmax over all experts.
std::vector<double> RouterProbabilities(std::span<const float> logits);

// The k best by probability, ties to the lower index; by a full sort.
std::vector<std::int32_t> BestExperts(std::span<const double> probabilities, std::int32_t k);

double Swiglu(double gate, double up);

}  // namespace millrace::reference

#endif  // MILLRACE_KERNELS_REFERENCE_MOE_H_
