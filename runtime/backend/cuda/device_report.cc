#include "runtime/backend/cuda/device_report.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "base/status.h"
#include "kernels/cuda/int8_peak.h"
#include "runtime/backend/cuda/cuda_status.h"
#include "runtime/backend/cuda/device.h"
#include "runtime/backend/cuda/resources.h"

namespace millrace::cuda {
namespace {

constexpr int kRounds = 5;

bool IsOff(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && std::string_view(value) == "off";
}

// An event that knows when it was.
absl::StatusOr<Event> MakeTimedEvent() {
  cudaEvent_t event = nullptr;
  MILLRACE_RETURN_IF_ERROR(
      ToStatus(cudaEventCreateWithFlags(&event, cudaEventDefault), "making an event"));
  return Event(event);
}

// The shortest time of `put`, which puts work on the stream, after one to warm up.
template <typename F>
absl::StatusOr<double> BestSeconds(cudaStream_t stream, F&& put) {
  MILLRACE_ASSIGN_OR_RETURN(const Event begin, MakeTimedEvent());
  MILLRACE_ASSIGN_OR_RETURN(const Event end, MakeTimedEvent());
  double best = 1e30;
  for (int round = 0; round <= kRounds; ++round) {
    MILLRACE_RETURN_IF_ERROR(ToStatus(cudaEventRecord(begin.get(), stream), "measuring"));
    MILLRACE_RETURN_IF_ERROR(ToStatus(put(), "measuring"));
    MILLRACE_RETURN_IF_ERROR(ToStatus(cudaEventRecord(end.get(), stream), "measuring"));
    MILLRACE_RETURN_IF_ERROR(ToStatus(cudaEventSynchronize(end.get()), "measuring"));
    float milliseconds = 0;
    MILLRACE_RETURN_IF_ERROR(
        ToStatus(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()), "measuring"));
    if (round > 0) best = std::min(best, static_cast<double>(milliseconds) / 1e3);
  }
  return best;
}

}  // namespace

bool GraphsAsked() { return !IsOff("MILLRACE_CUDA_GRAPHS"); }
bool FusionAsked() { return !IsOff("MILLRACE_CUDA_FUSION"); }

absl::StatusOr<CudaDeviceReport> DescribeDevice(std::int32_t index) {
  MILLRACE_ASSIGN_OR_RETURN(const DeviceFacts facts, OpenDevice(index));
  CudaDeviceReport report;
  report.name = facts.name;
  report.isa = facts.isa;
  MILLRACE_RETURN_IF_ERROR(
      ToStatus(cudaDriverGetVersion(&report.driver_version), "asking for the driver's version"));
  MILLRACE_RETURN_IF_ERROR(
      ToStatus(cudaRuntimeGetVersion(&report.runtime_version), "asking for the runtime's version"));
  report.multiprocessors = facts.multiprocessors;
  report.free_bytes = facts.free_bytes;
  report.total_bytes = facts.total_bytes;
  report.graphs = GraphsAsked();
  report.fused = FusionAsked();
  return report;
}

absl::Status MeasureDevice(const ProbeSize& size, CudaDeviceReport* report) {
  MILLRACE_ASSIGN_OR_RETURN(const Stream stream, MakeStream());
  const std::int64_t bytes = std::min(size.copy_bytes, report->free_bytes / 4);
  MILLRACE_ASSIGN_OR_RETURN(const DeviceMemory from, DeviceMemory::Allocate(bytes, "a probe"));
  MILLRACE_ASSIGN_OR_RETURN(const DeviceMemory to, DeviceMemory::Allocate(bytes, "a probe"));
  const auto count = static_cast<std::size_t>(bytes);
  MILLRACE_RETURN_IF_ERROR(
      ToStatus(cudaMemsetAsync(from.data(), 1, count, stream.get()), "filling a probe's memory"));
  MILLRACE_ASSIGN_OR_RETURN(const double copy_seconds, BestSeconds(stream.get(), [&] {
                              return cudaMemcpyAsync(to.data(), from.data(), count,
                                                     cudaMemcpyDeviceToDevice, stream.get());
                            }));
  report->copy_gb_per_second = 2.0 * static_cast<double>(bytes) / copy_seconds / 1e9;

  Int8PeakParams peak;
  peak.blocks = report->multiprocessors * size.int8_blocks;
  peak.rounds = size.int8_rounds;
  MILLRACE_ASSIGN_OR_RETURN(const DeviceMemory sums,
                            DeviceMemory::Allocate(std::int64_t{peak.blocks} * kInt8PeakThreads *
                                                       std::int64_t{sizeof(std::int32_t)},
                                                   "a probe"));
  peak.sums = reinterpret_cast<std::int32_t*>(sums.data());
  MILLRACE_ASSIGN_OR_RETURN(const double peak_seconds, BestSeconds(stream.get(), [&] {
                              return LaunchInt8Peak(peak, stream.get());
                            }));
  report->int8_gops =
      static_cast<double>(kInt8PeakOperations) * peak.blocks * peak.rounds / peak_seconds / 1e9;
  return absl::OkStatus();
}

absl::StatusOr<CudaDeviceReport> ReportDevice(std::int32_t index, bool measure) {
  MILLRACE_ASSIGN_OR_RETURN(CudaDeviceReport report, DescribeDevice(index));
  if (measure) MILLRACE_RETURN_IF_ERROR(MeasureDevice({}, &report));
  return report;
}

}  // namespace millrace::cuda
