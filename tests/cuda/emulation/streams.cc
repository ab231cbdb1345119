// Work on the streams of the emulated machine: launches, waits, events and graphs. It runs as late
// as CUDA allows, when something waits for it.
#include <sys/mman.h>

#include <chrono>
#include <memory>
#include <utility>

#include "tests/cuda/emulation/runtime.h"

namespace millrace::emulation {

cudaError_t Runtime::Put(Stream* stream, std::function<void()> run) {
  return Put(stream, Work{std::move(run), nullptr});
}

cudaError_t Runtime::Put(Stream* stream, Work work) {
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

bool Runtime::DrainTo(Stream* stream, std::int64_t position) {
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

cudaError_t Runtime::Wait(Lock* lock, Stream* stream, std::int64_t position) {
  while (!DrainTo(stream, position)) unhung_.wait(*lock);
  return Planned(Call::kWait);
}

cudaError_t Runtime::Query(Stream* stream, std::int64_t position) {
  if (stream == nullptr) stream = &default_stream_;
  if (stream->done >= position) return cudaSuccess;
  DrainTo(stream, stream->done + 1);  // as time passes
  return stream->done >= position ? cudaSuccess : cudaErrorNotReady;
}

std::shared_ptr<Grid> Runtime::MakeGrid(const KernelLaunch& launch) {
  return std::make_shared<Grid>(launch.shape, launch.body,
                                machine_.seed * 0x9E3779B97F4A7C15U + ++kernels_);
}

void Runtime::BeginNext(Stream* stream) {
  if (stream->queue.empty()) return;
  Work& next = stream->queue.front();
  if (next.kernel == nullptr || !next.kernel->shape.chained || next.hangs) return;
  next.begun = MakeGrid(*next.kernel);
  next.begun->Begin();
}

void Runtime::RunKernel(const KernelLaunch& launch, std::shared_ptr<Grid> grid) {
  if (grid == nullptr) grid = MakeGrid(launch);
  launched_.insert(launch.kernel);
  Fault fault = grid->Run();
  if (!fault.empty()) SetFault(std::move(fault));
}

bool Runtime::MayShare(const void* kernel, std::size_t bytes) const {
  constexpr std::size_t kDefaultLimit = 48 * 1024;
  const auto limit = shared_limits_.find(kernel);
  return bytes <=
         (limit == shared_limits_.end() ? kDefaultLimit : static_cast<std::size_t>(limit->second));
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
  const bool empty = config.gridDim.x == 0 || config.gridDim.y == 0 || config.gridDim.z == 0;
  // 65 535 is what y and z of a grid may have.
  if (empty || config.gridDim.y > 65535 || config.gridDim.z > 65535 ||
      !runtime.MayShare(kernel, config.dynamicSmemBytes)) {
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
using millrace::emulation::Do;
using millrace::emulation::Event;
using millrace::emulation::Graph;
using millrace::emulation::GraphExec;
using millrace::emulation::Lock;
using millrace::emulation::Runtime;
using millrace::emulation::Stream;

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
    // CUDA does not say whether the limit in force is the one of the capture or of now: the worse.
    for (const auto& work : exec->work) {
      if (work.kernel != nullptr &&
          !runtime->MayShare(work.kernel->kernel, work.kernel->shape.shared_bytes)) {
        return cudaErrorInvalidValue;
      }
    }
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
