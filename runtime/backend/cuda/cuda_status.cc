#include "runtime/backend/cuda/cuda_status.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace millrace::cuda {

absl::Status ToStatus(cudaError_t error, std::string_view doing) {
  if (error == cudaSuccess) return absl::OkStatus();
  std::string text = absl::StrCat("CUDA: ", std::string(doing), ": ", cudaGetErrorName(error), ", ",
                                  cudaGetErrorString(error));
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(text);
  return absl::UnavailableError(text);
}

}  // namespace millrace::cuda
