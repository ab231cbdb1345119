#include "runtime/backend/cuda/step_graphs.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "runtime/backend/cuda/cuda_status.h"

namespace millrace::cuda {

absl::StatusOr<GraphExec> StepGraphs::Capture(const StepShape& shape, int slot,
                                              cudaStream_t stream) {
  // Relaxed: loading a kernel for its first launch may take memory, as other modes forbid.
  MILLRACE_RETURN_IF_ERROR(
      ToStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "capturing a step"));
  const cudaError_t put = executor_->Run(shape, slot, stream);
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  cudaGraphExec_t exec = nullptr;
  cudaError_t made = cudaSuccess;
  if (put == cudaSuccess && ended == cudaSuccess) made = cudaGraphInstantiate(&exec, graph, 0);
  if (graph != nullptr) cudaGraphDestroy(graph);
  MILLRACE_RETURN_IF_ERROR(ToStatus(put, "launching a step's kernels"));
  MILLRACE_RETURN_IF_ERROR(ToStatus(ended, "capturing a step"));
  MILLRACE_RETURN_IF_ERROR(ToStatus(made, "making a graph of a step"));
  return GraphExec(exec);
}

absl::Status StepGraphs::Launch(const StepShape& shape, int slot, cudaStream_t stream) {
  auto entry = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& known) {
    return known.slot == slot && known.shape == shape;
  });
  if (entry == entries_.end()) {
    MILLRACE_ASSIGN_OR_RETURN(GraphExec graph, Capture(shape, slot, stream));
    if (entries_.size() >= kMost) entries_.pop_back();
    entries_.push_front({shape, slot, std::move(graph)});
  } else {
    entries_.splice(entries_.begin(), entries_, entry);
  }
  return ToStatus(cudaGraphLaunch(entries_.front().graph.get(), stream), "launching a step");
}

}  // namespace millrace::cuda
