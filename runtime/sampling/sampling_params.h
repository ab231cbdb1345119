// Sampling parameters of a request and the rules they must obey (the ranges of the gRPC interface).
// Values; thread-safe.
#ifndef MILLRACE_RUNTIME_SAMPLING_SAMPLING_PARAMS_H_
#define MILLRACE_RUNTIME_SAMPLING_SAMPLING_PARAMS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/sampling.h"

namespace millrace {

// Everything that shapes the choice of tokens in one request.
struct SamplingParams {
  SamplerParams sampler;
  std::vector<std::pair<std::uint32_t, float>> logit_bias;  // ascending by token, each once
  std::vector<std::uint32_t> allowed_token_ids;             // ascending; empty: all
  std::int32_t num_logprobs = -1;                           // -1: none; 0..20
};

inline constexpr std::int32_t kMaxLogprobs = 20;

// INVALID_ARGUMENT that names the field as the interface does ("sampling.top_p"), what it was and
// what is allowed.
absl::Status ValidateSamplingParams(const SamplingParams& params, std::uint32_t vocab_size);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_SAMPLING_SAMPLING_PARAMS_H_
