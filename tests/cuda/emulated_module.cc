// The CUDA module of a program (runtime/backend/cuda_module.h) on the emulated GPU: a whole server
// runs on it in tests. What goes wrong there is told by the environment:
//
//   MILLRACE_EMULATION_FAULT=launch:N    the N-th launch of a graph or kernel loses the device
//   MILLRACE_EMULATION_FAULT=hang:N      the N-th piece of work never ends
//   MILLRACE_EMULATION_FAULT=nodevice    there is no driver
//   MILLRACE_EMULATION_MEMORY=BYTES      of the device
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cuda/cuda_backend.h"
#include "runtime/backend/cuda/device_report.h"
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

}  // namespace

extern "C" {

[[gnu::visibility("default")]] const char* millrace_cuda_module_digest() {
  return MILLRACE_BACKEND_DIGEST;
}

[[gnu::visibility("default")]] void millrace_cuda_module_make(
    std::int32_t device, int threads, absl::StatusOr<std::unique_ptr<millrace::Backend>>* backend) {
  PlanFaults();
  // A test waits for the limit; a step takes some tenths of a second on an idle machine.
  auto made = millrace::cuda::CudaBackend::Create({.device = device,
                                                   .threads = threads,
                                                   .graphs = millrace::cuda::GraphsAsked(),
                                                   .step_limit = std::chrono::seconds(8)});
  if (made.ok()) {
    *backend = *std::move(made);
  } else {
    *backend = made.status();
  }
}

}  // extern "C"
