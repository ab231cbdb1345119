#include "base/thread_pool.h"

#include <chrono>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/cores.h"
#include "base/thread_governor.h"
#include "base/thread_name.h"

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

// Waits until `word` differs from `old`, spinning at most `spins` pauses before it sleeps. Whoever
// changes the word does so sequentially consistently: a notification looks first whether anybody
// waits, and after a store that is only a release the processor may look before the store is seen,
// while the waiter still reads the old value. Both then sleep for good.
void AwaitChange(const std::atomic<std::uint32_t>& word, std::uint32_t old, int spins) {
  for (int i = 0; i < spins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  while (word.load(std::memory_order_acquire) == old) word.wait(old, std::memory_order_acquire);
}

}  // namespace

struct ThreadPool::State {
  explicit State(int threads) : governor(threads), wanted(threads) {}

  // The number of the run in the high bits and its threads in the low ones, so that a worker that
  // wakes up late cannot take the threads of one run for those of another. A change wakes workers.
  static constexpr std::uint32_t kThreadBits = 11;
  static constexpr std::uint32_t kThreadMask = (1U << kThreadBits) - 1;

  // On lines of their own: one is written by the caller, the other by every worker.
  alignas(64) std::atomic<std::uint32_t> run{0};
  alignas(64) std::atomic<std::uint32_t> done{0};  // counts runs that every worker has finished
  alignas(64) std::atomic<int> busy{0};
  std::atomic<std::int64_t> first_done{0};  // when the first thread of the run had nothing to do
  // Nanoseconds that gates inside of the run were waited for, each by who came first.
  std::atomic<std::int64_t> waited_inside{0};
  WorkerFn fn = nullptr;  // written before `run` changes
  void* context = nullptr;
  std::atomic<bool> stop{false};
  int spins = 0;
  ThreadGovernor governor;
  // Workers at and above it sleep until `returns` changes.
  alignas(64) std::atomic<int> wanted;
  std::atomic<std::uint32_t> returns{0};
  std::vector<std::thread> workers;

  static std::int64_t NowNanoseconds() {
    return std::chrono::steady_clock::now().time_since_epoch().count();
  }

  void NoteDone() {
    std::int64_t none = 0;
    if (first_done.load(std::memory_order_relaxed) != 0) return;
    first_done.compare_exchange_strong(none, NowNanoseconds(), std::memory_order_relaxed);
  }

  void SleepUntilWanted(int worker) {
    for (;;) {
      const std::uint32_t seen = returns.load();
      if (worker < wanted.load() || stop.load()) return;
      returns.wait(seen);
    }
  }

  void Work(int worker) {
    std::uint32_t seen = 0;
    while (true) {
      AwaitChange(run, seen, spins);
      seen = run.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_relaxed)) return;
      if (worker >= static_cast<int>(seen & kThreadMask)) {
        SleepUntilWanted(worker);
        continue;
      }
      fn(context, worker);
      NoteDone();
      if (busy.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        done.fetch_add(1);
        done.notify_one();
      }
    }
  }

  void SetWanted(int threads) {
    if (threads == wanted.load(std::memory_order_relaxed)) return;
    wanted.store(threads);
    returns.fetch_add(1);
    returns.notify_all();
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>(threads)) {
  MILLRACE_CHECK(threads >= 1 && threads <= static_cast<int>(State::kThreadMask),
                 "a pool has its caller and less than 2047 threads");
  // With more workers than cores the one waited for may need the core of the one that spins.
  state_->spins = threads <= AvailableCores() ? kSpinPauses : 0;
  for (int worker = 1; worker < threads; ++worker) {
    state_->workers.emplace_back([state = state_.get(), worker] {
      NameThisThread(kWorkerThread);
      state->Work(worker);
    });
  }
}

ThreadPool::~ThreadPool() {
  state_->stop = true;
  state_->returns.fetch_add(1);
  state_->returns.notify_all();
  state_->run.fetch_add(1U << State::kThreadBits);
  state_->run.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::Run(WorkerFn fn, void* context) {
  State& state = *state_;
  const int threads = state.governor.active();
  state.SetWanted(threads);
  Duration waited{0};
  if (threads == 1) {
    fn(context, 0);
  } else {
    state.fn = fn;
    state.context = context;
    state.busy.store(threads - 1, std::memory_order_relaxed);
    state.first_done.store(0, std::memory_order_relaxed);
    state.waited_inside.store(0, std::memory_order_relaxed);
    const std::uint32_t before = state.done.load(std::memory_order_relaxed);
    const std::uint32_t number =
        (state.run.load(std::memory_order_relaxed) >> State::kThreadBits) + 1;
    state.run.store(number << State::kThreadBits | static_cast<std::uint32_t>(threads));
    state.run.notify_all();
    fn(context, 0);
    state.NoteDone();
    AwaitChange(state.done, before, state.spins);
    waited = Duration{State::NowNanoseconds() - state.first_done.load(std::memory_order_relaxed)};
    waited += Duration{state.waited_inside.load(std::memory_order_relaxed)};
  }
  if (state.workers.empty()) return;
  state.governor.Note(TimePoint{Duration{State::NowNanoseconds()}}, waited);
}

void ThreadPool::Await(Gate* gate, void (*meanwhile)(void*), void* context) {
  std::uint32_t seen = gate->left.load(std::memory_order_acquire);
  if (seen == 0) return;
  const bool first = !gate->waited.exchange(true, std::memory_order_relaxed);
  const std::int64_t begin = State::NowNanoseconds();
  for (int i = 0; i < state_->spins && seen != 0; ++i) {
    meanwhile(context);
    Pause();
    seen = gate->left.load(std::memory_order_acquire);
  }
  while (seen != 0) {
    gate->left.wait(seen, std::memory_order_acquire);
    seen = gate->left.load(std::memory_order_acquire);
  }
  if (!first) return;
  state_->waited_inside.fetch_add(State::NowNanoseconds() - begin, std::memory_order_relaxed);
}

}  // namespace millrace
