// Hands out consecutive pieces of one allocation; with a null base it only counts. A value.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_CARVER_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_CARVER_H_

#include <cstddef>
#include <cstdint>

namespace millrace::cuda {

class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}

  template <typename T>
  T* Take(std::int64_t count) {
    T* const out = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (count * static_cast<std::int64_t>(sizeof(T)) + kPiece - 1) / kPiece * kPiece;
    return out;
  }
  std::int64_t used() const { return used_; }

 private:
  // What one warp's 16-byte loads cover in half: pieces begin at whole sectors of memory.
  static constexpr std::int64_t kPiece = 256;

  std::byte* const base_;
  std::int64_t used_ = 0;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_CARVER_H_
