// What decides on the kernels of a step and on their grids. Steps are rounded up to a few shapes,
// so that a graph captured for one serves many. Plain values; thread-safe.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_STEP_SHAPE_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_STEP_SHAPE_H_

#include <cstdint>
#include <vector>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/sample_rows.h"
#include "runtime/backend/attention_plan.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/program.h"

namespace millrace::cuda {

// One wave of attention: the step's numbers are at most these. `tokens_begin` and `units_begin` are
// exact; where there is one wave they are 0.
struct WaveShape {
  std::int32_t tokens_begin = 0;
  std::int32_t tokens = 0;
  std::int32_t units_begin = 0;
  std::int32_t units = 0;
  std::int32_t queries = 1;  // of a unit
  AttentionTile tile = AttentionTile::kGroup;

  bool operator==(const WaveShape&) const = default;
};

struct StepShape {
  std::int32_t tokens = 0;
  std::int32_t logits = 0;
  std::int32_t taken = 0;  // tokens that the step before samples
  std::vector<WaveShape> waves;
  SampleShape sample;
  bool samples = false;

  bool operator==(const StepShape&) const;
};

// The shape of a step, exactly. `samples` as StepTables::sample_shape.
StepShape ExactShape(const StepInput& input, const AttentionPlan& plan, const SampleShape& sample,
                     const ProgramDims& dims, std::int32_t multiprocessors);

// Steps of more tokens are not captured: their kernels take longer than their launches.
inline constexpr std::int32_t kMaxGraphTokens = 256;

// True where a graph serves the step: few tokens, and one wave.
bool FitsGraph(const StepShape& shape);

// The next larger shape of those for which graphs are captured; what it covers it serves with the
// same bits. REQUIRES: FitsGraph(shape).
StepShape GraphShape(const StepShape& shape, const BackendLimits& limits);

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_STEP_SHAPE_H_
