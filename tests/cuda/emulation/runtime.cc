// The emulated machine: its devices, what goes wrong on them, and the errors of calls.
#include "tests/cuda/emulation/runtime.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

// Where the kernels that ran lie is told from here on (tests/cuda/kernel_coverage.py).
extern "C" {
extern const char millrace_kernel_anchor;
const char millrace_kernel_anchor = 0;
}

namespace millrace::emulation {

thread_local int current_device = 0;

Runtime& Runtime::Get() {
  static auto* runtime = new Runtime;  // outlives the static objects of tests
  return *runtime;
}

void Runtime::Start(const Machine& machine) {
  const Lock lock(mutex_);
  machine_ = machine;
  if (const char* seed = std::getenv("MILLRACE_EMULATION_SEED"); seed != nullptr) {
    machine_.seed = std::strtoull(seed, nullptr, 10);
  }
  sticky_ = last_ = cudaSuccess;
  planned_.clear();
  hang_after_.reset();
  released_ = false;
  kernels_ = 0;
  fault_.clear();
  shared_limits_.clear();
  for (Stream* stream : streams_) {
    const int device = stream->device;
    *stream = Stream();
    stream->device = device;
  }
}

cudaError_t Runtime::Finish(cudaError_t own) {
  if (sticky_ != cudaSuccess) own = sticky_;
  if (own != cudaSuccess && own != cudaErrorNotReady) last_ = own;
  return own;
}

cudaError_t Runtime::Planned(Call call) {
  for (auto it = planned_.begin(); it != planned_.end(); ++it) {
    if (it->call != call || it->after-- > 0) continue;
    const cudaError_t error = it->error;
    if (it->sticky) sticky_ = error;
    planned_.erase(it);
    return error;
  }
  return cudaSuccess;
}

void Runtime::SetFault(Fault fault) {
  std::fprintf(stderr, "emulated GPU: %s\n", fault.c_str());
  fault_ = std::move(fault);
  sticky_ = cudaErrorLaunchFailure;
}

namespace {

// At the end of the process: writes to the file MILLRACE_KERNELS_RAN where the kernels begin that
// ran.
class ReportOfKernels {
 public:
  ~ReportOfKernels() {
    const char* path = std::getenv("MILLRACE_KERNELS_RAN");
    if (path == nullptr) return;
    std::FILE* file = std::fopen(path, "w");
    if (file == nullptr) return;
    for (const void* kernel : Runtime::Get().launched_) {
      std::fprintf(file, "%td\n", static_cast<const char*>(kernel) - &millrace_kernel_anchor);
    }
    std::fclose(file);
  }
};
const ReportOfKernels at_end;

}  // namespace

void Start(const Machine& machine) { Runtime::Get().Start(machine); }

void FailLater(Call call, int after, cudaError_t error, bool sticky) {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  runtime.planned_.push_back({call, after, error, sticky});
}
void HangLater(int after) {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  runtime.hang_after_ = after;
  runtime.released_ = false;
}
void Release() {
  Runtime& runtime = Runtime::Get();
  {
    const Lock lock(runtime.mutex_);
    runtime.released_ = true;
  }
  runtime.unhung_.notify_all();
}
std::string LastFault() {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  return runtime.fault_;
}
std::int64_t KernelsRun() {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  return static_cast<std::int64_t>(runtime.kernels_);
}
std::size_t DeviceBytes() {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  return runtime.device_bytes_;
}
std::size_t Pending() {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  std::size_t pending = 0;
  for (const Stream* stream : runtime.streams_) pending += stream->queue.size();
  return pending;
}

cudaError_t DescribeCode(cudaFuncAttributes* attributes) {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  if (runtime.machine_.compiled_for == 0) return runtime.Finish(cudaErrorNoKernelImageForDevice);
  attributes->ptxVersion = runtime.machine_.compiled_for;
  return runtime.Finish(cudaSuccess);
}

}  // namespace millrace::emulation

using millrace::emulation::current_device;
using millrace::emulation::Do;
using millrace::emulation::Lock;
using millrace::emulation::Runtime;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorDevicesUnavailable:
      return "cudaErrorDevicesUnavailable";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNoKernelImageForDevice:
      return "cudaErrorNoKernelImageForDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorEccUncorrectable:
      return "cudaErrorECCUncorrectable";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchTimeout:
      return "cudaErrorLaunchTimeout";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
  }
  return "an unknown error";
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

cudaError_t cudaPeekAtLastError() {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  return runtime.sticky_ != cudaSuccess ? runtime.sticky_ : runtime.last_;
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  runtime.last_ = cudaSuccess;
  return error;
}

cudaError_t cudaGetDeviceCount(int* count) {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  *count = runtime.machine_.devices;
  return runtime.Finish(runtime.machine_.count_error);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return Do(std::nullopt, [&](Runtime* runtime, Lock*) {
    if (device < 0 || device >= runtime->machine_.devices) return cudaErrorInvalidDevice;
    *properties = {};
    std::snprintf(properties->name, sizeof(properties->name), "Emulated GPU");
    properties->totalGlobalMem = runtime->machine_.memory_bytes;
    properties->sharedMemPerBlockOptin = runtime->machine_.shared_bytes;
    properties->multiProcessorCount = 132;  // as an H200 has them
    properties->l2CacheSize = 60 << 20;
    properties->major = runtime->machine_.major;
    properties->minor = runtime->machine_.minor;
    return cudaSuccess;
  });
}
cudaError_t cudaSetDevice(int device) {
  return Do(std::nullopt, [&](Runtime* runtime, Lock*) {
    if (device < 0 || device >= runtime->machine_.devices) return cudaErrorInvalidDevice;
    current_device = device;
    return cudaSuccess;
  });
}
cudaError_t cudaDriverGetVersion(int* version) {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  *version = runtime.machine_.driver_version;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
