#include "runtime/backend/cuda/device.h"

#include <cuda_runtime.h>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "kernels/cuda/int8_peak.h"
#include "runtime/backend/cuda/cuda_status.h"

namespace millrace::cuda {
namespace {

// int8 matrix products and asynchronous copies begin here; builds have code for it and later ones.
constexpr int kLeastMajor = 8;
// And chained launches here.
constexpr int kChainingMajor = 9;

// 12020 as 12.2.
std::string VersionText(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

absl::Status DriverTooOld(int driver) {
  int runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) {
    return absl::NotFoundError(
        "no NVIDIA driver is installed (or it is not passed to this container)");
  }
  return absl::FailedPreconditionError(
      absl::StrCat("the NVIDIA driver serves CUDA up to ", VersionText(driver),
                   "; this build needs one for CUDA ", VersionText(runtime)));
}

}  // namespace

absl::StatusOr<DeviceFacts> OpenDevice(std::int32_t index) {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  int count = 0;
  const cudaError_t counted = cudaGetDeviceCount(&count);
  cudaGetLastError();  // what it left behind
  // Without a driver CUDA says "insufficient driver", too.
  if (counted == cudaErrorInsufficientDriver) return DriverTooOld(driver);
  if (counted == cudaErrorNoDevice || (counted == cudaSuccess && count == 0)) {
    return absl::NotFoundError("no CUDA device is visible");
  }
  MILLRACE_RETURN_IF_ERROR(ToStatus(counted, "counting devices"));
  if (index < 0 || index >= count) {
    return absl::NotFoundError(absl::StrCat(
        "there is no CUDA device ", index, ": ",
        count == 1 ? "only cuda:0" : "cuda:0 to cuda:", count == 1 ? "" : absl::StrCat(count - 1)));
  }
  MILLRACE_RETURN_IF_ERROR(ToStatus(cudaSetDevice(index), "opening the device"));
  cudaDeviceProp properties;
  MILLRACE_RETURN_IF_ERROR(
      ToStatus(cudaGetDeviceProperties(&properties, index), "asking for the device's properties"));
  DeviceFacts facts;
  facts.index = index;
  facts.name = properties.name;
  facts.major = properties.major;
  facts.isa = absl::StrCat("sm_", properties.major, properties.minor);
  facts.multiprocessors = properties.multiProcessorCount;
  if (properties.major < kLeastMajor) {
    return absl::FailedPreconditionError(
        absl::StrCat(facts.name, " has compute capability ", properties.major, ".",
                     properties.minor, "; millrace needs ", kLeastMajor, ".0 or later"));
  }
  facts.shared_bytes = static_cast<std::int64_t>(properties.sharedMemPerBlockOptin);
  int compiled_for = 0;
  const cudaError_t described = CompiledFor(&compiled_for);
  if (described == cudaErrorNoKernelImageForDevice) {
    return absl::FailedPreconditionError(
        absl::StrCat("this build has no kernels for ", facts.name, " (", facts.isa, ")"));
  }
  MILLRACE_RETURN_IF_ERROR(ToStatus(described, "loading kernels"));
  facts.chains = properties.major >= kChainingMajor && compiled_for >= 10 * kChainingMajor;
  std::size_t free = 0;
  std::size_t total = 0;
  MILLRACE_RETURN_IF_ERROR(ToStatus(cudaMemGetInfo(&free, &total), "asking for free memory"));
  facts.free_bytes = static_cast<std::int64_t>(free);
  facts.total_bytes = static_cast<std::int64_t>(total);
  return facts;
}

}  // namespace millrace::cuda
