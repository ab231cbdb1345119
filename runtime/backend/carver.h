// Hands out consecutive pieces of one allocation; with a null base it only counts. A value.
#ifndef MILLRACE_RUNTIME_BACKEND_CARVER_H_
#define MILLRACE_RUNTIME_BACKEND_CARVER_H_

#include <cstddef>
#include <cstdint>

namespace millrace {

class Carver {
 public:
  // Pieces begin at multiples of `alignment` from `base`.
  Carver(std::byte* base, std::int64_t alignment) : base_(base), alignment_(alignment) {}

  template <typename T>
  T* Take(std::int64_t count) {
    T* const out = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    const std::int64_t bytes = count * static_cast<std::int64_t>(sizeof(T));
    used_ += (bytes + alignment_ - 1) / alignment_ * alignment_;
    return out;
  }
  std::int64_t used() const { return used_; }

 private:
  std::byte* const base_;
  const std::int64_t alignment_;
  std::int64_t used_ = 0;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_BACKEND_CARVER_H_
