// What tests/cuda/emulation/machine.h offers, on a real GPU: the default machine is there already,
// and whatever else a test asks for is a failure that names where such tests are left out.
// Test code; not thread-safe.
#ifndef MILLRACE_TESTS_CUDA_SELFTEST_REAL_MACHINE_H_
#define MILLRACE_TESTS_CUDA_SELFTEST_REAL_MACHINE_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "gtest/gtest.h"

namespace millrace::emulation {

struct Machine {
  int devices = 1;
  cudaError_t count_error = cudaSuccess;
  int driver_version = 13000;
  int major = 9;
  int minor = 0;
  std::size_t memory_bytes = std::size_t{4} << 30;
  std::size_t shared_bytes = 227 * 1024;
  int compiled_for = 90;
  std::uint64_t seed = 1;

  bool operator==(const Machine&) const = default;
};

inline void NeedsTheEmulatedGpu() {
  ADD_FAILURE() << "this test needs the emulated GPU: name it in tests/cuda/selftest/left_out.h";
}

inline void Start(const Machine& machine) {
  if (machine != Machine()) NeedsTheEmulatedGpu();
}
enum class Call : std::uint8_t { kMalloc, kHostAlloc, kMemcpy, kLaunch, kGraphLaunch, kWait };
inline void FailLater(Call, int, cudaError_t, bool) { NeedsTheEmulatedGpu(); }
inline void HangLater(int) { NeedsTheEmulatedGpu(); }
inline void Release() {}
inline std::string LastFault() { return ""; }
inline std::int64_t KernelsRun() {
  NeedsTheEmulatedGpu();
  return 0;
}
inline std::size_t DeviceBytes() {
  NeedsTheEmulatedGpu();
  return 0;
}

}  // namespace millrace::emulation

#endif  // MILLRACE_TESTS_CUDA_SELFTEST_REAL_MACHINE_H_
