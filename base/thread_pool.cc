#include "base/thread_pool.h"

#include <condition_variable>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/cores.h"

namespace millrace {
namespace {

// Pauses before a waiter sleeps: about 30 microseconds at 40 cycles a pause, a little more than the
// serial work between two stages of a decode step and far less than a scheduler's time slice.
constexpr int kSpinPauses = 2000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Waits until `word` differs from `old`, spinning at most `spins` pauses before it sleeps.
void AwaitChange(const std::atomic<std::uint32_t>& word, std::uint32_t old, int spins) {
  for (int i = 0; i < spins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  while (word.load(std::memory_order_acquire) == old) word.wait(old, std::memory_order_acquire);
}

}  // namespace

struct ThreadPool::State {
  // On lines of their own: one is written by the caller, the other by every worker.
  alignas(64) std::atomic<std::uint32_t> epoch{0};  // counts runs; a change wakes the workers
  alignas(64) std::atomic<std::uint32_t> done{0};   // counts runs that every worker has finished
  alignas(64) std::atomic<int> busy{0};
  WorkerFn fn = nullptr;  // written before the epoch changes
  void* context = nullptr;
  bool stop = false;
  int spins = 0;
  std::vector<std::thread> workers;

  void Work(int worker) {
    std::uint32_t seen = 0;
    while (true) {
      AwaitChange(epoch, seen, spins);
      ++seen;
      if (stop) return;
      fn(context, worker);
      if (busy.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        done.store(seen, std::memory_order_release);
        done.notify_one();
      }
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  MILLRACE_CHECK(threads >= 1, "a pool has at least its caller");
  // With more workers than cores the one waited for may need the core of the one that spins.
  state_->spins = threads <= AvailableCores() ? kSpinPauses : 0;
  for (int worker = 1; worker < threads; ++worker) {
    state_->workers.emplace_back([state = state_.get(), worker] { state->Work(worker); });
  }
}

ThreadPool::~ThreadPool() {
  state_->stop = true;
  state_->epoch.fetch_add(1, std::memory_order_release);
  state_->epoch.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::Run(WorkerFn fn, void* context) {
  State& state = *state_;
  const int others = static_cast<int>(state.workers.size());
  if (others == 0) {
    fn(context, 0);
    return;
  }
  state.fn = fn;
  state.context = context;
  state.busy.store(others, std::memory_order_relaxed);
  const std::uint32_t before = state.done.load(std::memory_order_relaxed);
  state.epoch.fetch_add(1, std::memory_order_release);
  state.epoch.notify_all();
  fn(context, 0);
  AwaitChange(state.done, before, state.spins);
}

}  // namespace millrace
