#include "runtime/backend/factory.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/cores.h"
#include "base/log.h"
#include "base/status.h"
#include "kernels/cpu/isa.h"
#include "runtime/backend/cpu/cpu_backend.h"
#include "runtime/backend/cpu/weight_cache.h"
#include "runtime/backend/cuda_module.h"

namespace millrace {
namespace {

// More would be a mistake of the caller: no machine has that many cores.
constexpr int kMaxThreads = 1024;

// Digits of a device's number: there is no machine with more.
constexpr std::size_t kMaxDeviceDigits = 3;

// N of "cuda:N", 0 of "cuda"; nothing of others.
std::optional<std::int32_t> CudaIndex(std::string_view device) {
  if (device == "cuda") return 0;
  constexpr std::string_view kPrefix = "cuda:";
  if (device.substr(0, kPrefix.size()) != kPrefix) return std::nullopt;
  device.remove_prefix(kPrefix.size());
  if (device.empty() || device.size() > kMaxDeviceDigits ||
      device.find_first_not_of("0123456789") != std::string_view::npos) {
    return std::nullopt;
  }
  return std::stoi(std::string(device));
}

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(int threads, const std::string& cpu_isa,
                                                        const WeightCacheOptions& weight_cache) {
  const cpu::Isa best = cpu::DetectIsa();
  cpu::Isa isa = best;
  if (cpu_isa != "auto") {
    const auto parsed = cpu::ParseIsa(cpu_isa);
    if (!parsed) {
      return absl::InvalidArgumentError(
          absl::StrCat("--cpu-isa ", cpu_isa, ": want ", kCpuIsaChoices));
    }
    if (!cpu::Supports(*parsed)) {
      return absl::InvalidArgumentError(absl::StrCat("--cpu-isa ", cpu_isa,
                                                     ": this machine lacks it; its best is ",
                                                     std::string(cpu::IsaName(best))));
    }
    isa = *parsed;
  }
  std::unique_ptr<cpu::WeightCache> cache;
  if (!weight_cache.directory.empty()) {
    cache = std::make_unique<cpu::WeightCache>(weight_cache, isa);
  }
  return std::make_unique<cpu::CpuBackend>(ThreadsToUse(threads), isa, std::move(cache));
}

}  // namespace

bool IsDeviceChoice(std::string_view device) {
  return device == "auto" || device == "cpu" || CudaIndex(device).has_value();
}

std::optional<std::int32_t> CudaDeviceOf(std::string_view device) {
  return device == "auto" ? 0 : CudaIndex(device);
}

absl::Status CheckMatmul(std::string_view matmul, std::string_view device) {
  if (matmul != "exact" && matmul != "cublas") {
    return absl::InvalidArgumentError(
        absl::StrCat("--matmul ", std::string(matmul), ": want ", kMatmulChoices));
  }
  if (matmul == "cublas" && device == "cpu") {
    return absl::InvalidArgumentError(
        "--matmul cublas: only a GPU has it, and this is --device cpu");
  }
  return absl::OkStatus();
}

int ThreadsToUse(int threads) {
  const int cores = AvailableCores();
  return threads == 0 ? cores : std::min(threads, cores);
}

bool IsCpuIsaChoice(std::string_view cpu_isa) {
  return cpu_isa == "auto" || cpu::ParseIsa(cpu_isa).has_value();
}

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const std::string& device, int threads,
                                                     const std::string& cpu_isa,
                                                     const WeightCacheOptions& weight_cache,
                                                     const std::string& matmul) {
  if (!IsDeviceChoice(device)) {
    return absl::InvalidArgumentError(absl::StrCat("--device ", device, ": want ", kDeviceChoices));
  }
  if (threads < 0 || threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("--threads ", threads, ": want 0 (all cores) to ", kMaxThreads));
  }
  MILLRACE_RETURN_IF_ERROR(CheckMatmul(matmul, device));
  if (device == "cpu") return MakeCpuBackend(threads, cpu_isa, weight_cache);
  CudaBackendOptions options;
  options.device = CudaDeviceOf(device).value_or(0);
  options.threads = ThreadsToUse(threads);
  options.cublas = matmul == "cublas";
  absl::StatusOr<std::unique_ptr<Backend>> cuda = MakeCudaBackend(options);
  if (cuda.ok()) return cuda;
  if (options.cublas) {
    return WithContext("--matmul cublas on --device " + device, cuda.status());
  }
  if (device != "auto") return WithContext("--device " + device, cuda.status());
  // An image for CPUs has no module: nothing to tell.
  if (!absl::IsUnimplemented(cuda.status())) {
    Log(LogLevel::kInfo, "using the CPU", {{"no_cuda", std::string(cuda.status().message())}});
  }
  return MakeCpuBackend(threads, cpu_isa, weight_cache);
}

}  // namespace millrace
