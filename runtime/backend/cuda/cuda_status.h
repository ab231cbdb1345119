// Errors of the CUDA runtime as statuses. Thread-safe.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_CUDA_STATUS_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_CUDA_STATUS_H_

#include <cuda_runtime.h>

#include <string_view>

#include "absl/status/status.h"

namespace millrace::cuda {

// OK for cudaSuccess. Else RESOURCE_EXHAUSTED where memory ran out and UNAVAILABLE for the rest,
// which means that the device is lost to this process; the text says what was being done and CUDA's
// name and words for the error.
absl::Status ToStatus(cudaError_t error, std::string_view doing);

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_CUDA_STATUS_H_
