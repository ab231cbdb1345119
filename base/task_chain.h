// Lists of tasks that are done one list after the other in one run of the pool: a task of a list
// begins when all lists before it have ended. Cheaper than a run for each list, since a worker that
// has to wait has already taken its next task and can ask for what that reads.
//
// Driven by one thread at a time, like the pool. Nobody's result may depend on who does a task.
#ifndef MILLRACE_BASE_TASK_CHAIN_H_
#define MILLRACE_BASE_TASK_CHAIN_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"

namespace millrace {

// task(i, worker) for i in [0, count), handed out in order.
template <typename Task>
struct TaskList {
  std::int64_t count;
  Task task;

  static constexpr bool kAhead = false;
};
template <typename Task>
TaskList(std::int64_t, Task) -> TaskList<Task>;

// The same for tasks that read much: task(i, next), where `next` is what this worker does after it,
// -1 for nothing, so that it can ask for what that reads. ask(i) returns what a worker that must
// wait before task i calls again and again, to ask for a little more of what it will read.
template <typename Task, typename Ask>
struct AheadTaskList {
  std::int64_t count;
  Task task;
  Ask ask;

  static constexpr bool kAhead = true;
};
template <typename Task, typename Ask>
AheadTaskList(std::int64_t, Task, Ask) -> AheadTaskList<Task, Ask>;

class TaskChain {
 public:
  static constexpr std::size_t kMaxLists = 4;

  // The pool outlives the chain.
  explicit TaskChain(ThreadPool* pool) : pool_(pool) {}

  // Returns when all tasks of all lists are done. REQUIRES: a list has fewer than 2^32 tasks.
  template <typename... List>
  void Run(const List&... lists) {
    static_assert(sizeof...(List) >= 1 && sizeof...(List) <= kMaxLists);
    std::size_t at = 0;
    (Reset(at++, lists.count), ...);
    at = 0;
    if (((lists.count <= 1) && ...)) {  // nothing to share
      (Work(at++, lists, 0), ...);
      return;
    }
    pool_->Run([&](int worker) {
      std::size_t list = 0;
      (Work(list++, lists, worker), ...);
    });
  }

 private:
  // On lines of their own: workers write both at the same time.
  struct Link {
    alignas(64) TaskCursor cursor;
    alignas(64) ThreadPool::Gate gate;  // of those behind this list
  };

  void Reset(std::size_t at, std::int64_t count) {
    links_[at].cursor.Reset();
    links_[at].gate.Reset(static_cast<std::uint32_t>(count));
  }

  template <typename List>
  void Work(std::size_t at, const List& list, int worker) {
    Link& link = links_[at];
    std::int64_t i = link.cursor.Next();
    if (i >= list.count) return;
    if constexpr (List::kAhead) {
      auto ask = list.ask(i);
      for (std::size_t before = 0; before < at; ++before) {
        pool_->Await(&links_[before].gate, ask);
      }
    } else {
      for (std::size_t before = 0; before < at; ++before) pool_->Await(&links_[before].gate);
    }
    std::uint32_t done = 0;
    for (; i < list.count; ++done) {
      if constexpr (List::kAhead) {
        const std::int64_t next = link.cursor.Next();
        list.task(i, next < list.count ? next : std::int64_t{-1});
        i = next;
      } else {
        list.task(i, worker);
        i = link.cursor.Next();
      }
    }
    link.gate.Pass(done);
  }

  ThreadPool* const pool_;
  std::array<Link, kMaxLists> links_;
};

}  // namespace millrace

#endif  // MILLRACE_BASE_TASK_CHAIN_H_
