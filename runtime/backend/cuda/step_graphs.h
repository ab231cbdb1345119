// Graphs of steps by shape: captured when a shape is first seen, launched from then on as one call.
//
// Driven by the engine thread; owns the graphs.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_STEP_GRAPHS_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_STEP_GRAPHS_H_

#include <cuda_runtime.h>

#include <list>

#include "absl/status/status.h"
#include "runtime/backend/cuda/executor.h"
#include "runtime/backend/cuda/resources.h"
#include "runtime/backend/cuda/step_shape.h"

namespace millrace::cuda {

class StepGraphs {
 public:
  // `executor` outlives the graphs.
  explicit StepGraphs(Executor* executor) : executor_(executor) {}

  // Puts a step of `shape`, whose tables are written, on the stream. REQUIRES: FitsGraph(shape).
  absl::Status Launch(const StepShape& shape, int slot, cudaStream_t stream);
  // Memory that graphs point to has moved.
  void Clear() { entries_.clear(); }
  std::size_t size() const { return entries_.size(); }

 private:
  // Each is some megabytes of device memory; the least used goes.
  static constexpr std::size_t kMost = 64;

  struct Entry {
    StepShape shape;
    int slot;
    GraphExec graph;
  };

  absl::StatusOr<GraphExec> Capture(const StepShape& shape, int slot, cudaStream_t stream);

  Executor* const executor_;
  std::list<Entry> entries_;  // most recently used first
};

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_STEP_GRAPHS_H_
