// Device memory of a step: every buffer that kernels need between the stages, sized once for the
// largest step. One allocation. Driven by the engine thread; owns its memory.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_STEP_BUFFERS_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_STEP_BUFFERS_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/cuda/activation_rows.h"
#include "kernels/cuda/sample_rows.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cuda/resources.h"
#include "runtime/backend/program.h"

namespace millrace::cuda {

// Counters of groups of blocks (kernels/cuda/last_block.h): 8 tokens' pairs with 8 experts, or 16
// tokens of a dense feed-forward, have less than a tenth of them.
inline constexpr std::int32_t kStepCounters = 16384;

// T = max_tokens, L = max_logit_rows, K = experts per token (1 if dense), E = experts (1 if dense),
// P = positions of max_context.
struct StepBuffers {
  float* x = nullptr;        // [T, H] the residual stream
  float* q = nullptr;        // [T, Nq * D]
  float* k = nullptr;        // [T, Nkv * D]
  float* v = nullptr;        // [T, Nkv * D]
  float* cosines = nullptr;  // [P, rotary_dim / 2], filled once
  float* sines = nullptr;    // the same
  float* partials = nullptr;
  float* router = nullptr;                 // [T, E]
  float* route_weights = nullptr;          // [T, K]
  std::int32_t* route_experts = nullptr;   // [T, K]
  std::int32_t* expert_offsets = nullptr;  // [E + 1]
  std::int32_t* row_tokens = nullptr;      // [T * K]
  std::int32_t* row_slots = nullptr;       // [T * K]
  std::int32_t* expert_rows = nullptr;     // [layers, E] of the step, for metrics
  float* gate = nullptr;                   // [T * K, F]
  float* up = nullptr;                     // [T * K, F]
  float* down = nullptr;                   // [T * K, H]
  float* logits = nullptr;                 // [L, V]
  // Sampled by the last two steps, in turn: what the host reads, and what a deferred token is.
  SampleResult* sampled[2] = {};         // [L]
  std::int32_t* sampled_tokens[2] = {};  // [L]
  std::byte* sampling_scratch = nullptr;
  std::int32_t* counters = nullptr;  // [kStepCounters], 0 between kernels
  // Activations in each format. The kernel that reads attended rows ends with writing hidden ones,
  // while it still reads others.
  ActivationRows hidden_rows;    // [max(T, L)] rows of H
  ActivationRows attended_rows;  // [T] rows of Nq * D
  ActivationRows ffn_rows;       // [T * K] rows of F

  // Device bytes that Allocate takes.
  static std::int64_t Bytes(const ProgramDims& dims, const BackendLimits& limits);
  static absl::StatusOr<StepBuffers> Allocate(const ProgramDims& dims, const BackendLimits& limits);

  DeviceMemory memory;
};

// (token, partition) pairs whose partials of attention fit into memory together.
std::int64_t MaxPartials(const ProgramDims& dims, const BackendLimits& limits);

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_STEP_BUFFERS_H_
