// Workers that run one function over slices of one operation. The calling thread is worker 0; a run
// ends with a barrier. Waiting spins for a bounded time and then sleeps; it never spins when there
// are more workers than cores allowed to the process. While other processes take cores away, fewer
// workers take part (base/thread_governor.h); nobody's result may depend on how many there are.
//
// Driven by one thread at a time.
#ifndef MILLRACE_BASE_THREAD_POOL_H_
#define MILLRACE_BASE_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace millrace {

class ThreadPool {
 public:
  // `threads` counts the caller; >= 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  // Calls fn(context, worker) for worker 0 and for as many others as have cores, at most once each,
  // and returns when all are done. So work is handed out by a TaskCursor, never by worker.
  using WorkerFn = void (*)(void* context, int worker);
  void Run(WorkerFn fn, void* context);

  // The same for a callable, without allocating: F is called as f(worker).
  template <typename F>
  void Run(F&& f) {
    using Callable = std::remove_reference_t<F>;
    WorkerFn call = [](void* context, int worker) { (*static_cast<Callable*>(context))(worker); };
    Run(call, const_cast<void*>(static_cast<const void*>(&f)));
  }

  // What workers of a run wait for within it: until so many tasks are done.
  struct Gate {
    std::atomic<std::uint32_t> left{0};
    std::atomic<bool> waited{false};  // by somebody in this run

    // Between runs.
    void Reset(std::uint32_t count) {
      left.store(count, std::memory_order_relaxed);
      waited.store(false, std::memory_order_relaxed);
    }
    // By a worker that did `count` of them.
    void Pass(std::uint32_t count) {
      // Sequentially consistent: see AwaitChange in thread_pool.cc.
      if (left.fetch_sub(count) == count) left.notify_all();
    }
  };
  // Within a run, by a worker: waits until all of the gate's tasks are done. Calls meanwhile()
  // again and again until they are, or it falls asleep.
  template <typename F>
  void Await(Gate* gate, F&& meanwhile) {
    using Callable = std::remove_reference_t<F>;
    Await(
        gate, [](void* context) { (*static_cast<Callable*>(context))(); }, &meanwhile);
  }
  void Await(Gate* gate) {
    Await(gate, [] {});
  }

 private:
  void Await(Gate* gate, void (*meanwhile)(void*), void* context);

  struct State;
  std::unique_ptr<State> state_;
};

// Hands out items 0 .. count-1 to workers in order, one atomic increment each: for uneven tasks.
class TaskCursor {
 public:
  void Reset() { next_.store(0, std::memory_order_relaxed); }
  std::int64_t Next() { return next_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> next_{0};
};

}  // namespace millrace

#endif  // MILLRACE_BASE_THREAD_POOL_H_
