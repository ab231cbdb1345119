// Memory that ends where a protected page begins: reading or writing one byte past the end crashes.
// Not thread-safe; owns its mapping.
#ifndef MILLRACE_TESTS_KERNELS_GUARDED_BUFFER_H_
#define MILLRACE_TESTS_KERNELS_GUARDED_BUFFER_H_

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <span>

namespace millrace::testing {

class GuardedBuffer {
 public:
  explicit GuardedBuffer(std::size_t bytes) : bytes_(bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t body = (bytes + page - 1) / page * page;
    mapped_bytes_ = body + page;
    mapping_ =
        mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping_ == MAP_FAILED) std::abort();
    std::byte* guard = static_cast<std::byte*>(mapping_) + body;
    if (mprotect(guard, page, PROT_NONE) != 0) std::abort();
    data_ = guard - bytes;
  }
  ~GuardedBuffer() { munmap(mapping_, mapped_bytes_); }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  template <typename T>
  std::span<T> As() {
    return {reinterpret_cast<T*>(data_), bytes_ / sizeof(T)};
  }

 private:
  std::size_t bytes_;
  std::size_t mapped_bytes_ = 0;
  void* mapping_ = nullptr;
  std::byte* data_ = nullptr;
};

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_KERNELS_GUARDED_BUFFER_H_
