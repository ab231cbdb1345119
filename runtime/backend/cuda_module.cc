#include "runtime/backend/cuda_module.h"

#include <dlfcn.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace millrace {
namespace {

// The module beside the program, if it is there; else its name, for the loader to find.
std::string ModulePath() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return kCudaModuleName;
  const std::filesystem::path beside = program.parent_path() / kCudaModuleName;
  return std::filesystem::exists(beside, error) ? beside.string() : kCudaModuleName;
}

std::string LoaderError() {
  const char* error = dlerror();
  return error == nullptr ? "unknown" : error;
}

// The module, of this program's build.
absl::StatusOr<void*> OpenModule() {
  const std::string path = ModulePath();
  // Never closed: CUDA's own threads run in it.
  void* module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    const std::string error = LoaderError();
    if (path == kCudaModuleName) {
      return absl::UnimplementedError(
          absl::StrCat("this build has no CUDA: ", kCudaModuleName, " is not beside the program"));
    }
    return absl::FailedPreconditionError(absl::StrCat(path, " does not load: ", error));
  }
  const auto digest = reinterpret_cast<CudaModuleDigestFn>(dlsym(module, kCudaModuleDigestSymbol));
  if (digest == nullptr || dlsym(module, kCudaModuleMakeSymbol) == nullptr ||
      dlsym(module, kCudaModuleReportSymbol) == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is no CUDA module of millrace"));
  }
  if (std::string(digest()) != MILLRACE_BACKEND_DIGEST) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, " was built with another version of this program: install both together"));
  }
  return module;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaBackendOptions& options) {
  MILLRACE_ASSIGN_OR_RETURN(void* const module, OpenModule());
  const auto make = reinterpret_cast<CudaModuleMakeFn>(dlsym(module, kCudaModuleMakeSymbol));
  absl::StatusOr<std::unique_ptr<Backend>> backend = absl::InternalError("made nothing");
  make(options, &backend);
  return backend;
}

absl::StatusOr<CudaDeviceReport> ReportCudaDevice(std::int32_t device, bool measure) {
  MILLRACE_ASSIGN_OR_RETURN(void* const module, OpenModule());
  const auto fill = reinterpret_cast<CudaModuleReportFn>(dlsym(module, kCudaModuleReportSymbol));
  absl::StatusOr<CudaDeviceReport> report = absl::InternalError("reported nothing");
  fill(device, measure, &report);
  return report;
}

}  // namespace millrace
