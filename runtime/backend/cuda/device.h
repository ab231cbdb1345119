// Finds a CUDA device that this build can use. Thread-safe.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_DEVICE_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_DEVICE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace millrace::cuda {

struct DeviceFacts {
  std::int32_t index = 0;
  std::string name;        // as the driver gives it
  std::string isa;         // "sm_90"
  std::int32_t major = 0;  // of the compute capability
  std::int32_t multiprocessors = 0;
  std::int64_t shared_bytes = 0;  // that a block may have
  // Kernels may be chained (kernels/cuda/launch.h): the device can, and the code that runs on it
  // waits. Code for older devices, which CUDA compiles anew for this one, does not.
  bool chains = false;
  std::int64_t free_bytes = 0;  // of its memory, now
  std::int64_t total_bytes = 0;
};

// Makes device `index` the calling thread's and describes it. Fails with one line that says what
// would be right: NOT_FOUND where there is no driver, no device or fewer devices;
// FAILED_PRECONDITION where the driver or the device is too old, or the build is not for it;
// UNAVAILABLE where it does not work.
absl::StatusOr<DeviceFacts> OpenDevice(std::int32_t index);

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_DEVICE_H_
