// Device memory of the self test, as the emulated GPU has it: it begins as NaNs, and what is
// written before its begin or behind its end is a failure of the test that frees it. The linker
// puts these functions in the place of CUDA's (--wrap), so backends take their memory here too.
#include <cuda_runtime.h>

#include <cstddef>
#include <map>
#include <mutex>
#include <vector>

#include "gtest/gtest.h"

// The linker's names for the functions that are wrapped.
extern "C" {
cudaError_t __real_cudaMalloc(void** pointer, std::size_t bytes);  // NOLINT
cudaError_t __real_cudaFree(void* pointer);                        // NOLINT
cudaError_t __wrap_cudaMalloc(void** pointer, std::size_t bytes);  // NOLINT
cudaError_t __wrap_cudaFree(void* pointer);                        // NOLINT
}

namespace {

// On either side; a multiple of what cudaMalloc aligns to, so that alignment stays.
constexpr std::size_t kGuardBytes = 4096;
constexpr int kPoison = 0xFF;  // NaNs as floats and halves, -1 as integers

struct Allocations {
  std::mutex mutex;
  std::map<void*, std::size_t> bytes;  // by what the test was given
};
Allocations& Get() {
  static auto* allocations = new Allocations;  // outlives the static objects of tests
  return *allocations;
}

bool Untouched(const std::byte* guard) {
  std::vector<unsigned char> bytes(kGuardBytes);
  if (cudaMemcpy(bytes.data(), guard, kGuardBytes, cudaMemcpyDeviceToHost) != cudaSuccess) {
    return true;  // the device is lost, which the listener says
  }
  for (const unsigned char byte : bytes) {
    if (byte != kPoison) return false;
  }
  return true;
}

}  // namespace

extern "C" cudaError_t __wrap_cudaMalloc(void** pointer, std::size_t bytes) {  // NOLINT
  void* memory = nullptr;
  const std::size_t all = bytes + 2 * kGuardBytes;
  if (const cudaError_t error = __real_cudaMalloc(&memory, all); error != cudaSuccess) return error;
  if (const cudaError_t error = cudaMemset(memory, kPoison, all); error != cudaSuccess) {
    __real_cudaFree(memory);
    return error;
  }
  // Streams that do not wait for the default one may use it at once.
  if (const cudaError_t error = cudaDeviceSynchronize(); error != cudaSuccess) return error;
  *pointer = static_cast<std::byte*>(memory) + kGuardBytes;
  const std::lock_guard lock(Get().mutex);
  Get().bytes[*pointer] = bytes;
  return cudaSuccess;
}

extern "C" cudaError_t __wrap_cudaFree(void* pointer) {  // NOLINT
  if (pointer == nullptr) return cudaSuccess;
  std::size_t bytes = 0;
  {
    const std::lock_guard lock(Get().mutex);
    const auto it = Get().bytes.find(pointer);
    if (it == Get().bytes.end()) return __real_cudaFree(pointer);
    bytes = it->second;
    Get().bytes.erase(it);
  }
  auto* begin = static_cast<std::byte*>(pointer);
  if (cudaDeviceSynchronize() == cudaSuccess) {
    if (!Untouched(begin - kGuardBytes)) {
      ADD_FAILURE() << "a write before the begin of an allocation of " << bytes << " bytes";
    }
    if (!Untouched(begin + bytes)) {
      ADD_FAILURE() << "a write behind the end of an allocation of " << bytes << " bytes";
    }
  }
  return __real_cudaFree(begin - kGuardBytes);
}
