#include "runtime/backend/cuda/resources.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/backend/cuda/cuda_status.h"

namespace millrace::cuda {
namespace {

cudaError_t AllocateBytes(void** memory, std::size_t bytes, FreeDevice) {
  return cudaMalloc(memory, bytes);
}
cudaError_t AllocateBytes(void** memory, std::size_t bytes, FreePinned) {
  return cudaHostAlloc(memory, bytes, cudaHostAllocDefault);
}

}  // namespace

template <typename Deleter>
absl::StatusOr<Memory<Deleter>> Memory<Deleter>::Allocate(std::int64_t bytes,
                                                          std::string_view what) {
  Memory memory;
  memory.bytes_ = bytes;
  if (bytes == 0) return memory;
  void* data = nullptr;
  const cudaError_t error = AllocateBytes(&data, static_cast<std::size_t>(bytes), Deleter());
  MILLRACE_RETURN_IF_ERROR(
      ToStatus(error, absl::StrCat("allocating ", bytes, " bytes for ", std::string(what))));
  memory.data_.reset(static_cast<std::byte*>(data));
  return memory;
}

template class Memory<FreeDevice>;
template class Memory<FreePinned>;

absl::StatusOr<Stream> MakeStream() {
  cudaStream_t stream = nullptr;
  MILLRACE_RETURN_IF_ERROR(
      ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream"));
  return Stream(stream);
}

absl::StatusOr<Event> MakeEvent() {
  cudaEvent_t event = nullptr;
  MILLRACE_RETURN_IF_ERROR(
      ToStatus(cudaEventCreateWithFlags(&event, cudaEventBlockingSync | cudaEventDisableTiming),
               "making an event"));
  return Event(event);
}

}  // namespace millrace::cuda
