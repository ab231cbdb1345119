// The kernel that probes a device's int8 rate does every product that it is counted for.
#include "kernels/cuda/int8_peak.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/cuda/device_array.h"

namespace millrace::cuda {
namespace {

TEST(CudaInt8Peak, DoesEveryProductThatIsCounted) {
  constexpr int kBlocks = 3;
  for (const std::int32_t rounds : {0, 1, 2, 7}) {
    testing::DeviceArray<std::int32_t> sums(kBlocks * kInt8PeakThreads);
    ASSERT_EQ(LaunchInt8Peak({.sums = sums.data(), .blocks = kBlocks, .rounds = rounds}, nullptr),
              cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const std::vector<std::int32_t> got = sums.Read();
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i], Int8PeakSum(static_cast<int>(i % 32), rounds))
          << "thread " << i << ", rounds " << rounds;
    }
  }
  EXPECT_NE(Int8PeakSum(0, 1), 0);
}

TEST(CudaInt8Peak, RefusesNoBlocks) {
  EXPECT_EQ(LaunchInt8Peak({.blocks = 0, .rounds = 1}, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace millrace::cuda
