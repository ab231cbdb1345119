// Memory of the emulated machine: allocations, which begin as NaNs and end where a protected page
// begins, and copies.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <iterator>
#include <string>
#include <vector>

#include "tests/cuda/emulation/runtime.h"

namespace millrace::emulation {
namespace {

std::size_t PageBytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

cudaError_t Runtime::Allocate(void** pointer, std::size_t bytes, bool device) {
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

void Runtime::Protect(int protection) {
  for (const auto& [pointer, allocation] : device_) {
    mprotect(static_cast<std::byte*>(allocation.mapping) + PageBytes(),
             allocation.mapped - 2 * PageBytes(), protection);
  }
}

cudaError_t Runtime::Free(void* pointer, bool device) {
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

bool Runtime::IsPinned(const void* pointer) {
  const Lock lock(mutex_);
  const auto after = host_.upper_bound(const_cast<void*>(pointer));
  if (after == host_.begin()) return false;
  const auto& [begin, allocation] = *std::prev(after);
  return static_cast<const std::byte*>(pointer) <
         static_cast<const std::byte*>(begin) + allocation.bytes;
}

}  // namespace millrace::emulation

using millrace::emulation::Call;
using millrace::emulation::Do;
using millrace::emulation::Lock;
using millrace::emulation::Runtime;

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
