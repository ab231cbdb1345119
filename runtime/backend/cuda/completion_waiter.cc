#include "runtime/backend/cuda/completion_waiter.h"

#include "base/thread_name.h"

namespace millrace::cuda {

CompletionWaiter::CompletionWaiter(std::int32_t device)
    : thread_([this, device] { Run(device); }) {}

CompletionWaiter::~CompletionWaiter() {
  {
    MutexLock lock(&mutex_);
    closing_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

void CompletionWaiter::Watch(cudaEvent_t event) {
  {
    MutexLock lock(&mutex_);
    watched_.push_back(event);
  }
  changed_.NotifyAll();
}

std::optional<cudaError_t> CompletionWaiter::Await(Duration limit) {
  const TimePoint deadline = SteadyClock().Now() + limit;
  MutexLock lock(&mutex_);
  while (ended_.empty()) {
    if (!changed_.WaitUntil(&mutex_, deadline) && ended_.empty()) return std::nullopt;
  }
  const cudaError_t error = ended_.front();
  ended_.pop_front();
  return error;
}

void CompletionWaiter::Run(std::int32_t device) {
  NameThisThread("cuda-waiter");
  cudaSetDevice(device);
  while (true) {
    cudaEvent_t event = nullptr;
    {
      MutexLock lock(&mutex_);
      while (watched_.empty() && !closing_) changed_.Wait(&mutex_);
      if (watched_.empty()) return;
      event = watched_.front();
      watched_.pop_front();
    }
    const cudaError_t error = cudaEventSynchronize(event);
    {
      MutexLock lock(&mutex_);
      ended_.push_back(error);
    }
    changed_.NotifyAll();
  }
}

}  // namespace millrace::cuda
