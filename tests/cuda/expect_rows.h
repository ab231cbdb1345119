// Rows of activations that a kernel wrote against those of the CPU's scalar level, bit for bit, for
// tests. Thread-safe.
#ifndef MILLRACE_TESTS_CUDA_EXPECT_ROWS_H_
#define MILLRACE_TESTS_CUDA_EXPECT_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/quantize.h"
#include "kernels/cuda/activation_rows.h"
#include "tests/cuda/activation_rows.h"
#include "tests/cuda/device_array.h"
#include "tests/kernels/float_test_support.h"

namespace millrace::testing {

// Every format's rows in device memory, of those that rows of k values have.
class ActivationArrays {
 public:
  ActivationArrays(std::int64_t rows, std::int64_t k) : rows_(rows), k_(k) {
    f32_ = Make(ActivationFormat::kF32);
    if (k % 32 == 0) q8x32_ = Make(ActivationFormat::kQ8x32);
    if (k % 256 == 0) q8x256_ = Make(ActivationFormat::kQ8x256);
  }

  cuda::ActivationRows rows() {
    cuda::ActivationRows out;
    out.f32 = f32_->data();
    if (q8x32_ != nullptr) out.q8x32 = q8x32_->data();
    if (q8x256_ != nullptr) out.q8x256 = q8x256_->data();
    return out;
  }

  // Row `index` of every format is that of `values` on the CPU; NaNs may have any payload.
  void ExpectRow(std::int64_t index, const std::vector<float>& values) {
    ExpectFormat(ActivationFormat::kF32, f32_.get(), index, values);
    if (q8x32_ != nullptr) ExpectFormat(ActivationFormat::kQ8x32, q8x32_.get(), index, values);
    if (q8x256_ != nullptr) ExpectFormat(ActivationFormat::kQ8x256, q8x256_.get(), index, values);
  }

  // Nothing was written to the row.
  void ExpectUntouched(std::int64_t index) {
    const std::int64_t bytes = cuda::ActivationLayoutOf(ActivationFormat::kF32, k_).row_bytes;
    const std::vector<std::byte> all = f32_->Read();
    for (std::int64_t i = index * bytes; i < (index + 1) * bytes; ++i) {
      ASSERT_EQ(all[static_cast<std::size_t>(i)], std::byte{0xFF}) << "row " << index;
    }
  }

 private:
  std::unique_ptr<DeviceArray<std::byte>> Make(ActivationFormat format) const {
    const std::int64_t bytes = rows_ * cuda::ActivationLayoutOf(format, k_).row_bytes;
    auto array = std::make_unique<DeviceArray<std::byte>>(static_cast<std::size_t>(bytes));
    array->Poison();
    return array;
  }

  static std::size_t BlockBytes(ActivationFormat format) {
    if (format == ActivationFormat::kF32) return sizeof(float);
    return format == ActivationFormat::kQ8x32 ? sizeof(ActivationQ8x32) : sizeof(ActivationQ8x256);
  }

  void ExpectFormat(ActivationFormat format, DeviceArray<std::byte>* array, std::int64_t index,
                    const std::vector<float>& values) const {
    SCOPED_TRACE("row " + std::to_string(index) + ", format " +
                 std::to_string(static_cast<int>(format)));
    std::vector<std::byte> expected(static_cast<std::size_t>(cpu::ActivationRowBytes(format, k_)));
    cpu::SelectQuantize(format, cpu::Isa::kScalar).fn(values.data(), k_, expected.data());
    const std::vector<std::byte> all = array->Read();
    std::vector<std::byte> actual(expected.size());
    FromDeviceRow(format, k_, all.data() + index * cuda::ActivationLayoutOf(format, k_).row_bytes,
                  actual.data());
    const std::size_t block = BlockBytes(format);
    for (std::size_t at = 0; at < expected.size(); at += block) {
      SCOPED_TRACE("block " + std::to_string(at / block));
      // A block begins with its scale.
      float scales[2];
      std::memcpy(&scales[0], actual.data() + at, sizeof(float));
      std::memcpy(&scales[1], expected.data() + at, sizeof(float));
      ExpectSameBits(std::span(&scales[0], 1), std::span(&scales[1], 1));
      ASSERT_EQ(std::memcmp(actual.data() + at + sizeof(float),
                            expected.data() + at + sizeof(float), block - sizeof(float)),
                0);
    }
  }

  const std::int64_t rows_;
  const std::int64_t k_;
  std::unique_ptr<DeviceArray<std::byte>> f32_, q8x32_, q8x256_;
};

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_CUDA_EXPECT_ROWS_H_
