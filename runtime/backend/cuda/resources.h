// What a process holds of a CUDA device, freed at the end of its scope: memory, streams, events,
// graphs. Move-only values; not thread-safe.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_RESOURCES_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_RESOURCES_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <type_traits>

#include "absl/status/statusor.h"

namespace millrace::cuda {

// Pieces of one allocation begin at multiples of this: whole sectors of memory, and more than any
// load of a kernel wants.
inline constexpr std::int64_t kPieceAlignment = 256;

struct FreeDevice {
  void operator()(std::byte* memory) const { cudaFree(memory); }
};
struct FreePinned {
  void operator()(std::byte* memory) const { cudaFreeHost(memory); }
};

// `bytes` of memory; `what` names it in errors. Device memory is for kernels and copies alone;
// pinned memory is the host's, which copies read and write while the host goes on.
template <typename Deleter>
class Memory {
 public:
  Memory() = default;
  static absl::StatusOr<Memory> Allocate(std::int64_t bytes, std::string_view what);

  std::byte* data() const { return data_.get(); }
  std::int64_t bytes() const { return bytes_; }

 private:
  std::unique_ptr<std::byte, Deleter> data_;
  std::int64_t bytes_ = 0;
};
using DeviceMemory = Memory<FreeDevice>;
using PinnedMemory = Memory<FreePinned>;

struct DestroyStream {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
struct DestroyEvent {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
struct DestroyGraph {
  void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
};
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, DestroyStream>;
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, DestroyEvent>;
using GraphExec = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, DestroyGraph>;

// One that does not wait for the default stream.
absl::StatusOr<Stream> MakeStream();
// One for waiting, not for timing; a thread that waits for it sleeps.
absl::StatusOr<Event> MakeEvent();

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_RESOURCES_H_
