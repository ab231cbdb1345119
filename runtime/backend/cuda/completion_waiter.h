// Waits for steps on a device, with a limit: CUDA has no wait that ends by itself, so a thread of
// its own waits without one and tells when it is over. Where a kernel hangs, that thread does, too,
// and the limit ends the wait of who asks.
//
// One thread calls Watch and Await. After a hang the waiter cannot be destroyed, since its thread
// never ends: it is left to the end of the process.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_COMPLETION_WAITER_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_COMPLETION_WAITER_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <deque>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "base/clock.h"
#include "base/mutex.h"

namespace millrace::cuda {

class CompletionWaiter {
 public:
  explicit CompletionWaiter(std::int32_t device);
  // Waits for what is watched.
  ~CompletionWaiter();

  // `event` was recorded, and is not again before it was awaited.
  void Watch(cudaEvent_t event);
  // Of the oldest event that is watched and was not awaited: how it ended; nothing if it has not
  // within `limit`.
  std::optional<cudaError_t> Await(Duration limit);

 private:
  void Run(std::int32_t device);

  Mutex mutex_;
  CondVar changed_;
  std::deque<cudaEvent_t> watched_ ABSL_GUARDED_BY(mutex_);
  std::deque<cudaError_t> ended_ ABSL_GUARDED_BY(mutex_);
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_COMPLETION_WAITER_H_
