// What the module exports for benchmarks (runtime/backend/cuda_module.h).
#include <cstdint>

#include "absl/status/statusor.h"
#include "runtime/backend/cuda/device_report.h"

extern "C" {

[[gnu::visibility("default")]] void millrace_cuda_module_report(
    std::int32_t device, bool measure, absl::StatusOr<millrace::CudaDeviceReport>* report) {
  *report = millrace::cuda::ReportDevice(device, measure);
}

}  // extern "C"
