// Products of weights with the same rows of activations, cut into tasks: slices of output features.
// The tasks do not depend on the number of rows, and no result on the tasks.
//
// A value on the stack of the thread that drives the step; workers read it.
#ifndef MILLRACE_RUNTIME_BACKEND_CPU_PRODUCT_TASKS_H_
#define MILLRACE_RUNTIME_BACKEND_CPU_PRODUCT_TASKS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/backend/cpu/weight_store.h"

namespace millrace::cpu {

// y[m, n] = W x (+ bias), and where `add_to` is given add_to += y.
struct Product {
  const Weight* weight;
  const float* bias;        // [n] or null
  float* y;                 // [m, n]
  float* add_to = nullptr;  // [m, n]
};

class ProductTasks {
 public:
  static constexpr std::int64_t kMaxProducts = 8;

  struct Task {
    const Product* product;
    std::int64_t begin, end;  // of its output features
  };

  // `products` outlive the object. REQUIRES: there are 1 to kMaxProducts.
  ProductTasks(std::span<const Product> products, int threads);

  std::int64_t count() const { return count_; }
  const Task& operator[](std::int64_t i) const { return tasks_[static_cast<std::size_t>(i)]; }
  // The first weights that task `i` reads; null for -1.
  const std::byte* weights(std::int64_t i) const;

 private:
  // A few tasks a worker and product: without a place on the heap, so that a step allocates
  // nothing.
  static constexpr std::size_t kMaxTasks = 1024;

  std::array<Task, kMaxTasks> tasks_;  // not initialised beyond count_
  std::int64_t count_ = 0;
};

// Asks for the first bytes of weights that a waiting worker will read, some with each call;
// harmless past their end. A value.
class AskAhead {
 public:
  explicit AskAhead(const std::byte* weights);
  void operator()();

 private:
  std::uintptr_t at_;
  std::uintptr_t end_;
};

// The least rows of a weight that make a task.
std::int64_t MinTaskRows(const Weight& weight);

// Rows of every slice but the last are a multiple of this: whole tiles of any level.
inline constexpr std::int64_t kSliceMultiple = 16;
// So many for each worker, so that they end together.
inline constexpr std::int64_t kTasksPerWorker = 4;

}  // namespace millrace::cpu

#endif  // MILLRACE_RUNTIME_BACKEND_CPU_PRODUCT_TASKS_H_
