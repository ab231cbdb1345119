// What a benchmark says about a device: its facts, and its limits by measuring. Thread-safe.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_DEVICE_REPORT_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_DEVICE_REPORT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/backend/cuda_module.h"

namespace millrace::cuda {

// False where the environment has MILLRACE_CUDA_GRAPHS=off: every kernel is then launched by
// itself, for profilers and to see what graphs are worth.
bool GraphsAsked();
// False where it has MILLRACE_CUDA_FUSION=off: no kernel ends with what could be one of its own.
bool FusionAsked();

// As OpenDevice; limits are still to be measured.
absl::StatusOr<CudaDeviceReport> DescribeDevice(std::int32_t index);

// How much work the limits are measured with.
struct ProbeSize {
  // Of each of the two buffers: far more than any cache of a GPU holds.
  std::int64_t copy_bytes = std::int64_t{2} << 30;
  std::int32_t int8_blocks = 4;       // a multiprocessor, as many as run there at once
  std::int32_t int8_rounds = 20'000;  // some milliseconds
};

// Fills the report's limits: the best of a few rounds. Takes half of what is free where that is
// less than copies want.
absl::Status MeasureDevice(const ProbeSize& size, CudaDeviceReport* report);

// Both, or the facts alone.
absl::StatusOr<CudaDeviceReport> ReportDevice(std::int32_t index, bool measure);

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_DEVICE_REPORT_H_
