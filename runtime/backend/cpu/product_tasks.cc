#include "runtime/backend/cpu/product_tasks.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"
#include "base/math.h"

namespace millrace::cpu {
namespace {

// What keeps a task well above the cost of handing it out.
constexpr std::int64_t kMinTaskBytes = std::int64_t{32} << 10;
// What a core reads in the few microseconds of a usual wait, and a small part of a second-level
// cache, into which it goes.
constexpr std::uintptr_t kAskBytes = std::uintptr_t{64} << 10;
// A call: as much as memory gives in the time of a pause.
constexpr std::uintptr_t kAskAtOnce = 256;

}  // namespace

AskAhead::AskAhead(const std::byte* weights)
    : at_(reinterpret_cast<std::uintptr_t>(weights)), end_(at_ + kAskBytes) {}

void AskAhead::operator()() {
  const std::uintptr_t until = std::min(at_ + kAskAtOnce, end_);
  for (; at_ < until; at_ += 64) __builtin_prefetch(reinterpret_cast<const void*>(at_), 0, 2);
}

std::int64_t MinTaskRows(const Weight& weight) {
  return CeilDivide(kMinTaskBytes * weight.tile_rows, weight.tile_bytes);
}

ProductTasks::ProductTasks(std::span<const Product> products, int threads) {
  MILLRACE_CHECK(!products.empty() && std::ssize(products) <= kMaxProducts,
                 "a list of tasks is of some products");
  std::int64_t total = 0;
  for (const Product& product : products) total += product.weight->rows;
  const std::int64_t wanted = CeilDivide(total, threads * kTasksPerWorker);
  const std::int64_t least = std::max(MinTaskRows(*products.front().weight),
                                      CeilDivide(total, std::int64_t{kMaxTasks} - kMaxProducts));
  const std::int64_t slice = CeilDivide(std::max(wanted, least), kSliceMultiple) * kSliceMultiple;
  for (const Product& product : products) {
    for (std::int64_t begin = 0; begin < product.weight->rows; begin += slice) {
      tasks_[static_cast<std::size_t>(count_++)] = {&product, begin,
                                                    std::min(begin + slice, product.weight->rows)};
    }
  }
}

const std::byte* ProductTasks::weights(std::int64_t i) const {
  if (i < 0) return nullptr;
  const Task& task = (*this)[i];
  return task.product->weight->tile(0, task.begin);
}

}  // namespace millrace::cpu
