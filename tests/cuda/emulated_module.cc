// The CUDA module of a program (runtime/backend/cuda_module.h) on the emulated GPU: a whole server
// runs on it in tests. What goes wrong there is told by the environment:
//
//   MILLRACE_EMULATION_FAULT=launch:N    the N-th launch of a graph or kernel loses the device
//   MILLRACE_EMULATION_FAULT=hang:N      the N-th piece of work never ends
//   MILLRACE_EMULATION_FAULT=nodevice    there is no driver
//   MILLRACE_EMULATION_FAULT=cublas:N    the N-th product of cuBLAS fails
//   MILLRACE_EMULATION_FAULT=nocublas    there is no cuBLAS
//   MILLRACE_EMULATION_MEMORY=BYTES      of the device
//   MILLRACE_EMULATION_CUBLAS_ROWS=N     rows from which cuBLAS is used, where it is asked for
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cuda/cuda_backend.h"
#include "runtime/backend/cuda/device_report.h"
#include "tests/cuda/emulation/cublas_machine.h"
#include "tests/cuda/emulation/machine.h"

namespace {

using millrace::emulation::Call;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void PlanFaults() {
  millrace::emulation::Machine machine;
  const std::string fault = Environment("MILLRACE_EMULATION_FAULT");
  if (fault == "nodevice") {
    machine.count_error = cudaErrorInsufficientDriver;
    machine.driver_version = 0;
  }
  if (const std::string memory = Environment("MILLRACE_EMULATION_MEMORY"); !memory.empty()) {
    machine.memory_bytes = std::stoull(memory);
  }
  millrace::emulation::Start(machine);
  if (fault.starts_with("launch:")) {
    const int after = std::stoi(fault.substr(7));
    millrace::emulation::FailLater(Call::kGraphLaunch, after, cudaErrorIllegalAddress, true);
  }
  if (fault.starts_with("hang:")) millrace::emulation::HangLater(std::stoi(fault.substr(5)));
}

// cuBLAS as the environment has it.
millrace::cuda::LibraryOptions Library(bool use) {
  millrace::cuda::LibraryOptions library;
  library.use = use;
  if (!use) return library;
  const std::string fault = Environment("MILLRACE_EMULATION_FAULT");
  library.library = fault == "nocublas" ? "libcublas-that-is-not-there.so.13"
                                        : millrace::emulation::CublasLibrary();
  if (fault.starts_with("cublas:")) {
    millrace::emulation::FailCublasLater(millrace::emulation::CublasCall::kGemm,
                                         std::stoi(fault.substr(7)),
                                         CUBLAS_STATUS_EXECUTION_FAILED);
  }
  const std::string rows = Environment("MILLRACE_EMULATION_CUBLAS_ROWS");
  if (!rows.empty()) library.least_rows = std::stoi(rows);
  // The host's protection of device memory is changed page by page.
  library.part_bytes = std::int64_t{1} << 20;
  library.workspace_bytes = std::int64_t{64} << 10;
  return library;
}

}  // namespace

extern "C" {

[[gnu::visibility("default")]] const char* millrace_cuda_module_digest() {
  return MILLRACE_BACKEND_DIGEST;
}

[[gnu::visibility("default")]] void millrace_cuda_module_make(
    const millrace::CudaBackendOptions& options,
    absl::StatusOr<std::unique_ptr<millrace::Backend>>* backend) {
  PlanFaults();
  // A test waits for the limit; a step takes some tenths of a second on an idle machine.
  auto made = millrace::cuda::CudaBackend::Create({.device = options.device,
                                                   .threads = options.threads,
                                                   .graphs = millrace::cuda::GraphsAsked(),
                                                   .fused = millrace::cuda::FusionAsked(),
                                                   .library = Library(options.cublas),
                                                   .step_limit = std::chrono::seconds(8)});
  if (made.ok()) {
    *backend = *std::move(made);
  } else {
    *backend = made.status();
  }
}

}  // extern "C"
