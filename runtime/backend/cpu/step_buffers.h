// Scratch of the CPU backend: every buffer a step needs, sized once for the largest step. One
// allocation. Owned by the backend; stages write disjoint parts of it.
#ifndef MILLRACE_RUNTIME_BACKEND_CPU_STEP_BUFFERS_H_
#define MILLRACE_RUNTIME_BACKEND_CPU_STEP_BUFFERS_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cpu/huge_buffer.h"
#include "runtime/backend/program.h"

namespace millrace::cpu {

inline constexpr std::size_t kNumFormats = 3;  // of ActivationFormat

// T = max_tokens, K = experts per token (1 if dense), L = max_logit_rows; floats but where said
// otherwise.
struct StepBuffers {
  float* x = nullptr;                     // [T, H] the residual stream
  float* normed = nullptr;                // [max(T, L), H]
  float* q = nullptr;                     // [T, Nq * D]
  float* k = nullptr;                     // [T, Nkv * D]
  float* v = nullptr;                     // [T, Nkv * D]
  float* attended = nullptr;              // [T, Nq * D]
  float* projected = nullptr;             // [T, H]
  float* cosines = nullptr;               // [T, rotary_dim / 2]
  float* sines = nullptr;                 // [T, rotary_dim / 2]
  float* router = nullptr;                // [T, E]
  float* route_weights = nullptr;         // [T, K]
  std::int32_t* route_experts = nullptr;  // [T, K]
  float* gate = nullptr;                  // [T * K, F]
  float* up = nullptr;                    // [T * K, F]
  float* down = nullptr;                  // [T * K, H]
  float* logits = nullptr;                // [L, V]
  float* partials = nullptr;              // of attention: kPartialFloats
  // Activations in each format; the same memory serves hidden, attended and feed-forward rows in
  // turn.
  std::array<std::byte*, kNumFormats> quantised{};      // [max(T, L)] rows of max(H, Nq * D)
  std::array<std::byte*, kNumFormats> ffn_quantised{};  // [T * K] rows of F

  std::int64_t partial_floats = 0;

  // Bytes that Allocate takes for these limits.
  static std::int64_t Bytes(const ProgramDims& dims, const BackendLimits& limits);
  static absl::StatusOr<StepBuffers> Allocate(const ProgramDims& dims, const BackendLimits& limits);

  HugeBuffer memory;
};

}  // namespace millrace::cpu

#endif  // MILLRACE_RUNTIME_BACKEND_CPU_STEP_BUFFERS_H_
