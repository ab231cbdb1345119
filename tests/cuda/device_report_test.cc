// What a benchmark says about a device.
#include "runtime/backend/cuda/device_report.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace millrace::cuda {
namespace {

TEST(CudaDeviceReport, NamesTheDeviceAndMeasuresItsLimits) {
  absl::StatusOr<CudaDeviceReport> report = DescribeDevice(0);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->name.empty());
  EXPECT_EQ(report->isa.substr(0, 3), "sm_");
  EXPECT_GE(report->driver_version, report->runtime_version / 1000 * 1000);
  EXPECT_GT(report->free_bytes, 0);
  EXPECT_LE(report->free_bytes, report->total_bytes);
  EXPECT_EQ(report->copy_gb_per_second, 0);
  // Small, since the emulated GPU is no quicker than it is.
  const absl::Status measured = MeasureDevice(
      {.copy_bytes = std::int64_t{4} << 20, .int8_blocks = 1, .int8_rounds = 1}, &*report);
  ASSERT_TRUE(measured.ok()) << measured;
  EXPECT_GT(report->copy_gb_per_second, 0);
  EXPECT_GT(report->int8_gops, 0);
}

TEST(CudaDeviceReport, FailsWhereThereIsNoSuchDevice) {
  EXPECT_TRUE(absl::IsNotFound(DescribeDevice(99).status())) << DescribeDevice(99).status();
}

TEST(CudaDeviceReport, SaysWhetherStepsAreLaunchedAsGraphs) {
  EXPECT_TRUE(DescribeDevice(0)->graphs);
  setenv("MILLRACE_CUDA_GRAPHS", "off", /*overwrite=*/1);
  EXPECT_FALSE(DescribeDevice(0)->graphs);
  unsetenv("MILLRACE_CUDA_GRAPHS");
}

TEST(CudaDeviceReport, SaysWhetherKernelsEndWithWhatFollowsThem) {
  EXPECT_TRUE(DescribeDevice(0)->fused);
  setenv("MILLRACE_CUDA_FUSION", "off", /*overwrite=*/1);
  EXPECT_FALSE(DescribeDevice(0)->fused);
  unsetenv("MILLRACE_CUDA_FUSION");
}

}  // namespace
}  // namespace millrace::cuda
