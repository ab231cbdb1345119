// The emulated runtime: memory, streams, events, graphs, launches and faults.
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "tests/cuda/emulation/machine.h"

// Where the kernels that ran lie is told from here on (tests/cuda/kernel_coverage.py).
extern "C" {
extern const char millrace_kernel_anchor;
const char millrace_kernel_anchor = 0;
}

namespace millrace::emulation {

struct KernelLaunch {
  const void* kernel;
  GridShape shape;
  std::function<void()> body;
};

// A piece of work: a kernel, or anything else. One that hangs is never run before Release.
struct Work {
  std::function<void()> run;
  std::shared_ptr<const KernelLaunch> kernel;
  bool hangs = false;
  std::shared_ptr<Grid> begun;  // of a kernel that has begun beside the one before
};

class Graph {
 public:
  std::vector<Work> work;
};
class GraphExec {
 public:
  std::vector<Work> work;
};

class Stream {
 public:
  std::deque<Work> queue;
  std::int64_t put = 0;   // pieces so far
  std::int64_t done = 0;  // of them
  Graph* capture = nullptr;
  int device = 0;
};

class Event {
 public:
  Stream* stream = nullptr;  // null: never recorded
  std::int64_t position = 0;
  std::chrono::steady_clock::time_point time;
};

namespace {

using Lock = std::unique_lock<std::recursive_mutex>;

struct Allocation {
  void* mapping;
  std::size_t mapped;
  std::size_t bytes;
};

struct PlannedFault {
  Call call;
  int after;
  cudaError_t error;
  bool sticky;
};

std::size_t PageBytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

class Runtime {
 public:
  static Runtime& Get() {
    static auto* runtime = new Runtime;  // outlives the static objects of tests
    return *runtime;
  }

  void Start(const Machine& machine) {
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

  // The error that a call ends with: a sticky one, a planned one, or `own`.
  cudaError_t Finish(cudaError_t own) {
    if (sticky_ != cudaSuccess) own = sticky_;
    if (own != cudaSuccess && own != cudaErrorNotReady) last_ = own;
    return own;
  }
  cudaError_t Planned(Call call) {
    for (auto it = planned_.begin(); it != planned_.end(); ++it) {
      if (it->call != call || it->after-- > 0) continue;
      const cudaError_t error = it->error;
      if (it->sticky) sticky_ = error;
      planned_.erase(it);
      return error;
    }
    return cudaSuccess;
  }

  cudaError_t Allocate(void** pointer, std::size_t bytes, bool device) {
    if (capturing_ > 0) return cudaErrorStreamCaptureUnsupported;
    if (device && device_bytes_ + bytes > machine_.memory_bytes) return cudaErrorMemoryAllocation;
    const std::size_t rounded = (bytes + 15) / 16 * 16;
    const std::size_t body = (rounded + PageBytes() - 1) / PageBytes() * PageBytes();
    void* mapping = mmap(nullptr, body + 2 * PageBytes(), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) return cudaErrorMemoryAllocation;
    auto* begin = static_cast<std::byte*>(mapping) + PageBytes();
    mprotect(mapping, PageBytes(), PROT_NONE);
    mprotect(begin + body, PageBytes(), PROT_NONE);
    std::memset(begin, 0xFF, body);  // NaNs as floats
    *pointer = begin + body - rounded;
    (device ? device_ : host_)[*pointer] = {mapping, body + 2 * PageBytes(), bytes};
    if (device) device_bytes_ += bytes;
    if (device) mprotect(begin, body, PROT_NONE);
    return cudaSuccess;
  }
  // Device memory is for kernels and copies; the host may not touch it.
  void Protect(int protection) {
    for (const auto& [pointer, allocation] : device_) {
      mprotect(static_cast<std::byte*>(allocation.mapping) + PageBytes(),
               allocation.mapped - 2 * PageBytes(), protection);
    }
  }
  cudaError_t Free(void* pointer, bool device) {
    if (pointer == nullptr) return cudaSuccess;
    auto& allocations = device ? device_ : host_;
    const auto it = allocations.find(pointer);
    if (it == allocations.end()) return cudaErrorInvalidValue;
    if (sticky_ == cudaSuccess) {
      for (Stream* stream : streams_) DrainTo(stream, stream->put);
    }
    if (device) Protect(PROT_READ | PROT_WRITE);
    const auto* bytes = static_cast<const unsigned char*>(pointer);
    for (std::size_t i = it->second.bytes; i % 16 != 0; ++i) {
      if (bytes[i] == 0xFF) continue;
      SetFault("a write behind the end of an allocation of " + std::to_string(it->second.bytes));
      break;
    }
    if (device) device_bytes_ -= it->second.bytes;
    munmap(it->second.mapping, it->second.mapped);
    allocations.erase(it);
    if (device) Protect(PROT_NONE);
    return cudaSuccess;
  }

  bool IsPinned(const void* pointer) {
    const Lock lock(mutex_);
    const auto after = host_.upper_bound(const_cast<void*>(pointer));
    if (after == host_.begin()) return false;
    const auto& [begin, allocation] = *std::prev(after);
    return static_cast<const std::byte*>(pointer) <
           static_cast<const std::byte*>(begin) + allocation.bytes;
  }

  cudaError_t Put(Stream* stream, std::function<void()> run) {
    return Put(stream, Work{std::move(run), nullptr});
  }
  cudaError_t Put(Stream* stream, Work work) {
    if (stream == nullptr) stream = &default_stream_;
    if (stream->capture != nullptr) {
      stream->capture->work.push_back(std::move(work));
      return cudaSuccess;
    }
    if (hang_after_.has_value() && (*hang_after_)-- == 0) {
      work.hangs = true;
      hang_after_.reset();
    }
    stream->queue.push_back(std::move(work));
    ++stream->put;
    return cudaSuccess;
  }

  // Runs a stream up to a position; false if work hangs before it.
  bool DrainTo(Stream* stream, std::int64_t position) {
    while (stream->done < position && !stream->queue.empty()) {
      if (stream->queue.front().hangs && !released_) return false;
      Work work = std::move(stream->queue.front());
      stream->queue.pop_front();
      ++stream->done;
      // After a fault nothing runs on this device any more.
      if (sticky_ == cudaSuccess) {
        Protect(PROT_READ | PROT_WRITE);
        if (work.kernel != nullptr) {
          BeginNext(stream);
          RunKernel(*work.kernel, std::move(work.begun));
        } else {
          work.run();
        }
        Protect(PROT_NONE);
      }
    }
    return true;
  }
  cudaError_t Wait(Lock* lock, Stream* stream, std::int64_t position) {
    while (!DrainTo(stream, position)) unhung_.wait(*lock);
    return Planned(Call::kWait);
  }
  cudaError_t Query(Stream* stream, std::int64_t position) {
    if (stream == nullptr) stream = &default_stream_;
    if (stream->done >= position) return cudaSuccess;
    DrainTo(stream, stream->done + 1);  // as time passes
    return stream->done >= position ? cudaSuccess : cudaErrorNotReady;
  }

  std::shared_ptr<Grid> MakeGrid(const KernelLaunch& launch) {
    return std::make_shared<Grid>(launch.shape, launch.body,
                                  machine_.seed * 0x9E3779B97F4A7C15U + ++kernels_);
  }
  // A chained kernel behind the one that runs now may begin before that has done anything.
  void BeginNext(Stream* stream) {
    if (stream->queue.empty()) return;
    Work& next = stream->queue.front();
    if (next.kernel == nullptr || !next.kernel->shape.chained || next.hangs) return;
    next.begun = MakeGrid(*next.kernel);
    next.begun->Begin();
  }
  void RunKernel(const KernelLaunch& launch, std::shared_ptr<Grid> grid) {
    if (grid == nullptr) grid = MakeGrid(launch);
    launched_.insert(launch.kernel);
    Fault fault = grid->Run();
    if (!fault.empty()) SetFault(std::move(fault));
  }
  void SetFault(Fault fault) {
    std::fprintf(stderr, "emulated GPU: %s\n", fault.c_str());
    fault_ = std::move(fault);
    sticky_ = cudaErrorLaunchFailure;
  }

  void Forget(Stream* stream) { streams_.erase(stream); }
  void Remember(Stream* stream) { streams_.insert(stream); }

  std::recursive_mutex mutex_;
  std::condition_variable_any unhung_;
  Machine machine_;
  cudaError_t sticky_ = cudaSuccess;
  cudaError_t last_ = cudaSuccess;
  std::vector<PlannedFault> planned_;
  std::optional<int> hang_after_;
  bool released_ = false;
  std::uint64_t kernels_ = 0;
  std::map<void*, Allocation> device_;
  std::map<void*, Allocation> host_;
  std::size_t device_bytes_ = 0;
  Stream default_stream_;
  std::set<Stream*> streams_ = {&default_stream_};
  int capturing_ = 0;
  Fault fault_;
  std::map<const void*, int> shared_limits_;
  std::set<const void*> launched_;  // kernels that ran, of all Starts
};

// As CUDA has it: a thread begins with device 0, whatever others chose.
thread_local int current_device = 0;

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

cudaError_t PutLaunch(const cudaLaunchConfig_t& config, const void* kernel,
                      std::function<void()> body) {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  if (const cudaError_t error = runtime.Planned(Call::kLaunch); error != cudaSuccess) {
    return runtime.Finish(error);
  }
  const auto index = [](const dim3& d) { return Index3{d.x, d.y, d.z}; };
  const GridShape shape = {
      index(config.gridDim), index(config.blockDim), config.dynamicSmemBytes,
      config.numAttrs > 0 && config.attrs->val.programmaticStreamSerializationAllowed != 0};
  constexpr int kDefaultLimit = 48 * 1024;
  const auto limit = runtime.shared_limits_.find(kernel);
  const int allowed = limit == runtime.shared_limits_.end() ? kDefaultLimit : limit->second;
  const bool empty = config.gridDim.x == 0 || config.gridDim.y == 0 || config.gridDim.z == 0;
  // 65 535 is what y and z of a grid may have.
  if (empty || config.gridDim.y > 65535 || config.gridDim.z > 65535 ||
      config.dynamicSmemBytes > static_cast<std::size_t>(allowed)) {
    return runtime.Finish(cudaErrorInvalidValue);
  }
  if (config.stream != nullptr && config.stream->device != current_device) {
    return runtime.Finish(cudaErrorInvalidResourceHandle);
  }
  if (shape.chained && runtime.machine_.compiled_for < 90) {
    runtime.SetFault("a chained kernel that was compiled for a GPU that has no such launches");
  }
  auto launch = std::make_shared<KernelLaunch>(KernelLaunch{kernel, shape, std::move(body)});
  return runtime.Finish(runtime.Put(config.stream, Work{nullptr, std::move(launch)}));
}

cudaError_t DescribeCode(cudaFuncAttributes* attributes) {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  if (runtime.machine_.compiled_for == 0) return runtime.Finish(cudaErrorNoKernelImageForDevice);
  attributes->ptxVersion = runtime.machine_.compiled_for;
  return runtime.Finish(cudaSuccess);
}

cudaError_t RaiseSharedLimit(const void* kernel, int bytes) {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  if (static_cast<std::size_t>(bytes) > runtime.machine_.shared_bytes) {
    return runtime.Finish(cudaErrorInvalidValue);
  }
  runtime.shared_limits_[kernel] = bytes;
  return runtime.Finish(cudaSuccess);
}

}  // namespace millrace::emulation

using millrace::emulation::Call;
using millrace::emulation::current_device;
using millrace::emulation::Event;
using millrace::emulation::Graph;
using millrace::emulation::GraphExec;
using millrace::emulation::Lock;
using millrace::emulation::Runtime;
using millrace::emulation::Stream;

namespace {

// Runs `body` under the lock, unless an earlier error or a planned one ends the call.
template <typename Body>
cudaError_t Do(std::optional<Call> call, const Body& body) {
  Runtime& runtime = Runtime::Get();
  Lock lock(runtime.mutex_);
  if (runtime.sticky_ != cudaSuccess) return runtime.Finish(cudaSuccess);
  if (call.has_value()) {
    const cudaError_t error = runtime.Planned(*call);
    if (error != cudaSuccess) return runtime.Finish(error);
  }
  return runtime.Finish(body(&runtime, &lock));
}

}  // namespace

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
cudaError_t cudaDeviceSynchronize() {
  return Do(std::nullopt, [&](Runtime* runtime, Lock* lock) {
    cudaError_t error = cudaSuccess;
    const auto streams = runtime->streams_;
    for (Stream* stream : streams) {
      const cudaError_t one = runtime->Wait(lock, stream, stream->put);
      if (error == cudaSuccess) error = one;
    }
    return error;
  });
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return Do(std::nullopt, [&](Runtime* runtime, Lock*) {
    *total = runtime->machine_.memory_bytes;
    *free = *total - runtime->device_bytes_;
    return cudaSuccess;
  });
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  return Do(Call::kMalloc,
            [&](Runtime* runtime, Lock*) { return runtime->Allocate(pointer, bytes, true); });
}
cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  return Do(Call::kHostAlloc,
            [&](Runtime* runtime, Lock*) { return runtime->Allocate(pointer, bytes, false); });
}
// Memory is given back after a fault, too.
cudaError_t cudaFree(void* pointer) {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  return runtime.Finish(runtime.Free(pointer, true));
}
cudaError_t cudaFreeHost(void* pointer) {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  return runtime.Finish(runtime.Free(pointer, false));
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  return Do(Call::kMemcpy, [&](Runtime* runtime, Lock*) {
    return runtime->Put(stream, [=] {
      if (bytes > 0) std::memcpy(to, from, bytes);
    });
  });
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (kind == cudaMemcpyHostToDevice && !Runtime::Get().IsPinned(from)) {
    // CUDA returns when it has read pageable memory; streams that do not wait for the default one
    // may see what was there before.
    const auto* bytes_of = static_cast<const std::byte*>(from);
    return Do(Call::kMemcpy, [&](Runtime* runtime, Lock*) {
      return runtime->Put(nullptr,
                          [to, staged = std::vector<std::byte>(bytes_of, bytes_of + bytes)] {
                            if (!staged.empty()) std::memcpy(to, staged.data(), staged.size());
                          });
    });
  }
  const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return error != cudaSuccess ? error : cudaStreamSynchronize(nullptr);
}
cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t stream) {
  return Do(Call::kMemcpy, [&](Runtime* runtime, Lock*) {
    return runtime->Put(stream, [=] {
      if (bytes > 0) std::memset(pointer, value, bytes);
    });
  });
}
cudaError_t cudaMemset(void* pointer, int value, std::size_t bytes) {
  const cudaError_t error = cudaMemsetAsync(pointer, value, bytes, nullptr);
  return error != cudaSuccess ? error : cudaStreamSynchronize(nullptr);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return Do(std::nullopt, [&](Runtime* runtime, Lock*) {
    *stream = new Stream;
    (*stream)->device = current_device;
    runtime->Remember(*stream);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  if (runtime.sticky_ == cudaSuccess) runtime.DrainTo(stream, stream->put);
  runtime.Forget(stream);
  delete stream;
  return runtime.Finish(cudaSuccess);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return Do(std::nullopt, [&](Runtime* runtime, Lock* lock) {
    Stream* real = stream == nullptr ? &runtime->default_stream_ : stream;
    if (real->capture != nullptr) return cudaErrorStreamCaptureUnsupported;
    return runtime->Wait(lock, real, real->put);
  });
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return Do(std::nullopt, [&](Runtime* runtime, Lock*) {
    Stream* real = stream == nullptr ? &runtime->default_stream_ : stream;
    return runtime->Query(real, real->put);
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return Do(std::nullopt, [&](Runtime* runtime, Lock*) {
    if (event->stream == nullptr) return cudaSuccess;
    Stream* const other = event->stream;
    const std::int64_t position = event->position;
    return runtime->Put(stream, [=] { Runtime::Get().DrainTo(other, position); });
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return Do(std::nullopt, [&](Runtime*, Lock*) {
    *event = new Event;
    return cudaSuccess;
  });
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return Do(std::nullopt, [&](Runtime* runtime, Lock*) {
    Stream* real = stream == nullptr ? &runtime->default_stream_ : stream;
    if (real->capture != nullptr) return cudaErrorStreamCaptureUnsupported;
    const cudaError_t error =
        runtime->Put(real, [event] { event->time = std::chrono::steady_clock::now(); });
    event->stream = real;
    event->position = real->put;
    return error;
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return Do(std::nullopt, [&](Runtime* runtime, Lock* lock) {
    if (event->stream == nullptr) return cudaSuccess;
    return runtime->Wait(lock, event->stream, event->position);
  });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return Do(std::nullopt, [&](Runtime* runtime, Lock*) {
    if (event->stream == nullptr) return cudaSuccess;
    return runtime->Query(event->stream, event->position);
  });
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  return Do(std::nullopt, [&](Runtime*, Lock*) {
    *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
    return cudaSuccess;
  });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  return Do(std::nullopt, [&](Runtime* runtime, Lock*) {
    if (stream == nullptr || stream->capture != nullptr) return cudaErrorStreamCaptureUnsupported;
    stream->capture = new Graph;
    ++runtime->capturing_;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return Do(std::nullopt, [&](Runtime* runtime, Lock*) {
    if (stream->capture == nullptr) return cudaErrorInvalidValue;
    *graph = std::exchange(stream->capture, nullptr);
    --runtime->capturing_;
    return cudaSuccess;
  });
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return Do(std::nullopt, [&](Runtime*, Lock*) {
    *exec = new GraphExec{graph->work};
    return cudaSuccess;
  });
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return Do(Call::kGraphLaunch, [&](Runtime* runtime, Lock*) {
    cudaError_t error = cudaSuccess;
    for (const auto& work : exec->work) error = runtime->Put(stream, work);
    return error;
  });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
