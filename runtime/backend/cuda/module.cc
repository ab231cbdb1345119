// What the module exports (runtime/backend/cuda_module.h).
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cuda/cuda_backend.h"
#include "runtime/backend/cuda/device_report.h"

extern "C" {

[[gnu::visibility("default")]] const char* millrace_cuda_module_digest() {
  return MILLRACE_BACKEND_DIGEST;
}

[[gnu::visibility("default")]] void millrace_cuda_module_make(
    const millrace::CudaBackendOptions& options,
    absl::StatusOr<std::unique_ptr<millrace::Backend>>* backend) {
  auto made = millrace::cuda::CudaBackend::Create({.device = options.device,
                                                   .threads = options.threads,
                                                   .graphs = millrace::cuda::GraphsAsked(),
                                                   .fused = millrace::cuda::FusionAsked(),
                                                   .library = {.use = options.cublas}});
  if (made.ok()) {
    *backend = *std::move(made);
  } else {
    *backend = made.status();
  }
}

}  // extern "C"
