// An array in device memory, with copies to and fro that wait until they are done. On the emulated
// GPU it begins as NaNs, and an access behind it ends the test. Not thread-safe; owns its memory.
#ifndef MILLRACE_TESTS_CUDA_DEVICE_ARRAY_H_
#define MILLRACE_TESTS_CUDA_DEVICE_ARRAY_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <span>
#include <vector>

#include "gtest/gtest.h"

namespace millrace::testing {

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count) : count_(count) {
    EXPECT_EQ(cudaMalloc(&data_, count * sizeof(T)), cudaSuccess);
  }
  explicit DeviceArray(std::span<const T> values) : DeviceArray(values.size()) { Fill(values); }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(std::span<const T>(values)) {}
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() { return data_; }
  std::size_t size() const { return count_; }

  void Fill(std::span<const T> values) {
    ASSERT_EQ(values.size(), count_);
    EXPECT_EQ(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  void Fill(const std::vector<T>& values) { Fill(std::span<const T>(values)); }
  // Bytes of 0xFF: NaNs as floats.
  void Poison() { EXPECT_EQ(cudaMemset(data_, 0xFF, count_ * sizeof(T)), cudaSuccess); }
  std::vector<T> Read() {
    std::vector<T> values(count_);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t count_;
};

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_CUDA_DEVICE_ARRAY_H_
