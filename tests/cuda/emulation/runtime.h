// The state of the emulated runtime, and the form in which every call of it ends. The calls lie by
// subject: runtime.cc has the machine and what goes wrong on it, memory.cc allocations and copies,
// streams.cc the work on streams.
//
// Test code, for these three files. Everything is guarded by Runtime::mutex_.
#ifndef MILLRACE_TESTS_CUDA_EMULATION_RUNTIME_H_
#define MILLRACE_TESTS_CUDA_EMULATION_RUNTIME_H_

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "tests/cuda/emulation/machine.h"

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

class Runtime {
 public:
  static Runtime& Get();

  // ---- The machine and what goes wrong on it: runtime.cc
  void Start(const Machine& machine);
  // The error that a call ends with: a sticky one, a planned one, or `own`.
  cudaError_t Finish(cudaError_t own);
  cudaError_t Planned(Call call);
  void SetFault(Fault fault);
  // Whether blocks of the kernel may have so much dynamic shared memory now: streams.cc
  bool MayShare(const void* kernel, std::size_t bytes) const;

  // ---- Memory: memory.cc
  cudaError_t Allocate(void** pointer, std::size_t bytes, bool device);
  cudaError_t Free(void* pointer, bool device);
  // Device memory is for kernels and copies; the host may not touch it.
  void Protect(int protection);
  bool IsPinned(const void* pointer);

  // ---- Work on streams: streams.cc
  // Behind what the stream has; null is the default stream.
  cudaError_t Put(Stream* stream, std::function<void()> run);
  cudaError_t Put(Stream* stream, Work work);
  // Runs a stream up to a position; false if work hangs before it.
  bool DrainTo(Stream* stream, std::int64_t position);
  cudaError_t Wait(Lock* lock, Stream* stream, std::int64_t position);
  cudaError_t Query(Stream* stream, std::int64_t position);
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

 private:
  std::shared_ptr<Grid> MakeGrid(const KernelLaunch& launch);
  // A chained kernel behind the one that runs now may begin before that has done anything.
  void BeginNext(Stream* stream);
  void RunKernel(const KernelLaunch& launch, std::shared_ptr<Grid> grid);
};

// As CUDA has it: a thread begins with device 0, whatever others chose.
extern thread_local int current_device;

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

}  // namespace millrace::emulation

#endif  // MILLRACE_TESTS_CUDA_EMULATION_RUNTIME_H_
