// What runtime/backend/cuda_module.h promises, without a module: for programs that have the CUDA
// backend linked in. They list this file among their own sources, so that the linker has no need of
// the one that loads modules.
#include <utility>

#include "runtime/backend/cuda/cuda_backend.h"
#include "runtime/backend/cuda/device_report.h"
#include "runtime/backend/cuda_module.h"

namespace millrace {

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaBackendOptions& options) {
  auto made = cuda::CudaBackend::Create({.device = options.device,
                                         .threads = options.threads,
                                         .graphs = cuda::GraphsAsked(),
                                         .fused = cuda::FusionAsked(),
                                         .library = {.use = options.cublas}});
  if (!made.ok()) return made.status();
  return *std::move(made);
}

absl::StatusOr<CudaDeviceReport> ReportCudaDevice(std::int32_t device, bool measure) {
  return cuda::ReportDevice(device, measure);
}

}  // namespace millrace
