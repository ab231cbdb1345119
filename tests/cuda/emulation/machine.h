// What the emulated machine is, and what goes wrong on it: set by tests. Not thread-safe against
// work under way, except Release.
#ifndef MILLRACE_TESTS_CUDA_EMULATION_MACHINE_H_
#define MILLRACE_TESTS_CUDA_EMULATION_MACHINE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include <cuda_runtime.h>

namespace millrace::emulation {

struct Machine {
  int devices = 1;
  cudaError_t count_error = cudaSuccess;  // of cudaGetDeviceCount: no driver, or one too old
  int driver_version = 13000;
  int major = 9;
  int minor = 0;
  std::size_t memory_bytes = std::size_t{4} << 30;
  std::size_t shared_bytes = 227 * 1024;  // that a block may have; of an H200
  // The compute capability, times ten, that the kernels were compiled for; 0: the build has no code
  // for this machine. Below 90 kernels cannot await the one before, so launching one chained is a
  // fault.
  int compiled_for = 90;
  std::uint64_t seed = 1;  // of the orders in which things run; MILLRACE_EMULATION_SEED overrides
};

// Forgets faults and sticky errors. REQUIRES: no stream, event or memory of before is used again.
void Start(const Machine& machine);

enum class Call : std::uint8_t { kMalloc, kHostAlloc, kMemcpy, kLaunch, kGraphLaunch, kWait };
// The call `after` calls of its kind from now fails with `error`. A sticky error is the device's
// end: all later calls return it too.
void FailLater(Call call, int after, cudaError_t error, bool sticky);
// The work that is put on a stream `after` pieces from now never ends, until Release. Waits block,
// queries say cudaErrorNotReady.
void HangLater(int after);
void Release();

// What the last faulty kernel did; empty if none.
std::string LastFault();
// Kernels run and device bytes held, since Start.
std::int64_t KernelsRun();
std::size_t DeviceBytes();
// Pieces of work that wait on all streams.
std::size_t Pending();

}  // namespace millrace::emulation

#endif  // MILLRACE_TESTS_CUDA_EMULATION_MACHINE_H_
