// The CUDA backend as a module that is loaded while the program runs, so that one program serves
// with and without CUDA, and where there is none nothing of CUDA needs to be installed.
//
// The module is libmillrace_cuda.so, beside the program or in the loader's path. It is built with
// the program: both hold a digest of the interfaces that they share, and a module with another is
// refused. Thread-safe; a module that was loaded stays.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_MODULE_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_MODULE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/backend/backend.h"

namespace millrace {

// What a benchmark says about the device that it ran on.
struct CudaDeviceReport {
  std::string name;  // as the driver gives it
  std::string isa;   // "sm_90"
  std::int32_t driver_version = 0;
  std::int32_t runtime_version = 0;  // 13000 is 13.0
  std::int32_t multiprocessors = 0;
  std::int64_t free_bytes = 0;  // of its memory, now
  std::int64_t total_bytes = 0;
  bool graphs = true;  // steps are launched as graphs
  bool fused = true;   // kernels end with what follows them where that pays
  // Limits, where they were measured: bytes read plus bytes written by a large copy within the
  // device, and int8 matrix instructions on registers; a multiply-add counts as two.
  double copy_gb_per_second = 0;
  double int8_gops = 0;
};

// What a CUDA backend is made for.
struct CudaBackendOptions {
  std::int32_t device = 0;
  int threads = 1;      // that prepare weights while they are loaded
  bool cublas = false;  // large products by cuBLAS: rows then depend on their neighbours
};

inline constexpr char kCudaModuleName[] = "libmillrace_cuda.so";

// What the module exports, as C names.
inline constexpr char kCudaModuleDigestSymbol[] = "millrace_cuda_module_digest";
inline constexpr char kCudaModuleMakeSymbol[] = "millrace_cuda_module_make";
inline constexpr char kCudaModuleReportSymbol[] = "millrace_cuda_module_report";
using CudaModuleDigestFn = const char* (*)();
// Fills `backend` with one, or with why there is none.
using CudaModuleMakeFn = void (*)(const CudaBackendOptions& options,
                                  absl::StatusOr<std::unique_ptr<Backend>>* backend);
using CudaModuleReportFn = void (*)(std::int32_t device, bool measure,
                                    absl::StatusOr<CudaDeviceReport>* report);

// UNIMPLEMENTED where there is no module; FAILED_PRECONDITION for one that does not load or was
// built with another program; else as CudaBackend::Create.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaBackendOptions& options);

// Errors as MakeCudaBackend's. `measure`: its limits, too, which takes about a second and some of
// its free memory.
absl::StatusOr<CudaDeviceReport> ReportCudaDevice(std::int32_t device, bool measure);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_MODULE_H_
