// The truth that the choice of a token is tested against: the naive way, by full sorts, in double.
// The definition is in kernels/sampling.h. Thread-safe.
#ifndef MILLRACE_KERNELS_REFERENCE_SAMPLING_H_
#define MILLRACE_KERNELS_REFERENCE_SAMPLING_H_

#include <span>
#include <vector>

#include "kernels/sampling.h"

namespace millrace::reference {

// Logits after masks, penalties and bias; -infinity for tokens that cannot be drawn.
std::vector<double> ChangedLogits(std::span<const float> logits, const SampleRow& row);

// The distribution that the draw is from, over the vocabulary. `margin`, if not null, becomes the
// least relative distance of a decision of top-p or min-p from its threshold: below about 1e-5 the
// float arithmetic of a sampler may rightly decide otherwise.
std::vector<double> SamplingDistribution(std::span<const float> logits, const SampleRow& row,
                                         double* margin);

// Of the raw logits.
std::vector<double> LogProbabilities(std::span<const float> logits);

}  // namespace millrace::reference

#endif  // MILLRACE_KERNELS_REFERENCE_SAMPLING_H_
