// The inverse frequencies of rotary embeddings, with the scaling that a file asks for folded in.
// Thread-safe (pure functions).
#ifndef MILLRACE_RUNTIME_MODEL_ROPE_FREQUENCIES_H_
#define MILLRACE_RUNTIME_MODEL_ROPE_FREQUENCIES_H_

#include <cstdint>
#include <vector>

namespace millrace {

enum class RopeScalingKind : std::uint8_t { kNone, kLinear, kYarn };

struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  double factor = 1.0;  // how many times longer than trained
  // YaRN (Peng et al. 2023, "YaRN: Efficient Context Window Extension"):
  double original_context = 0;
  double beta_fast = 32;  // turns within the trained context from which a pair is left as it is
  double beta_slow = 1;   // turns up to which it is stretched in full
  double attention_factor = 1;  // of cosines and sines, on top of 0.1 ln(factor) + 1
  // llama's rope_freqs.weight: divides the frequency of each pair; empty: none.
  std::vector<float> divisors;
};

struct RopeFrequencies {
  std::vector<double> inverse;  // [rotary_dim / 2]
  double magnitude = 1;         // of cosines and sines
};

// inverse[i] = base^(-2 i / rotary_dim) before scaling.
RopeFrequencies MakeRopeFrequencies(std::int32_t rotary_dim, double base,
                                    const RopeScaling& scaling);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_MODEL_ROPE_FREQUENCIES_H_
