#include "runtime/backend/factory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/cores.h"
#include "kernels/cpu/isa.h"
#include "runtime/backend/cpu/cpu_backend.h"
#include "runtime/backend/cpu/weight_cache.h"

namespace millrace {
namespace {

// More would be a mistake of the caller: no machine has that many cores.
constexpr int kMaxThreads = 1024;

}  // namespace

int ThreadsToUse(int threads) {
  const int cores = AvailableCores();
  return threads == 0 ? cores : std::min(threads, cores);
}

bool IsCpuIsaChoice(std::string_view cpu_isa) {
  return cpu_isa == "auto" || cpu::ParseIsa(cpu_isa).has_value();
}

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const std::string& device, int threads,
                                                     const std::string& cpu_isa,
                                                     const WeightCacheOptions& weight_cache) {
  if (absl::StartsWith(device, "cuda")) {
    return absl::UnimplementedError(
        absl::StrCat("--device ", device, ": CUDA is not built yet; use cpu"));
  }
  if (device != "auto" && device != "cpu") {
    return absl::InvalidArgumentError(absl::StrCat("--device ", device, ": want auto or cpu"));
  }
  if (threads < 0 || threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("--threads ", threads, ": want 0 (all cores) to ", kMaxThreads));
  }
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

}  // namespace millrace
