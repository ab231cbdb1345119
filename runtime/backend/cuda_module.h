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

#include "absl/status/statusor.h"
#include "runtime/backend/backend.h"

namespace millrace {

inline constexpr char kCudaModuleName[] = "libmillrace_cuda.so";

// What the module exports, as C names.
inline constexpr char kCudaModuleDigestSymbol[] = "millrace_cuda_module_digest";
inline constexpr char kCudaModuleMakeSymbol[] = "millrace_cuda_module_make";
using CudaModuleDigestFn = const char* (*)();
// Fills `backend` with a backend for CUDA device `device`, or with why there is none.
using CudaModuleMakeFn = void (*)(std::int32_t device, int threads,
                                  absl::StatusOr<std::unique_ptr<Backend>>* backend);

// UNIMPLEMENTED where there is no module; FAILED_PRECONDITION for one that does not load or was
// built with another program; else as CudaBackend::Create.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(std::int32_t device, int threads);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_MODULE_H_
