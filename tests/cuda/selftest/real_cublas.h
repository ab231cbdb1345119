// What tests/cuda/emulation/cublas_machine.h offers, with the cuBLAS that is installed, if it is.
// Test code; not thread-safe.
#ifndef MILLRACE_TESTS_CUDA_SELFTEST_REAL_CUBLAS_H_
#define MILLRACE_TESTS_CUDA_SELFTEST_REAL_CUBLAS_H_

#include <cublas_v2.h>
#include <dlfcn.h>

#include <cstdint>
#include <string>

#include "runtime/backend/cuda/cublas.h"
#include "tests/cuda/selftest/real_machine.h"

namespace millrace::emulation {

struct CublasMachine {
  int major = 13;
  int minor = 1;

  bool operator==(const CublasMachine&) const = default;
};

inline std::string CublasLibrary(const CublasMachine& machine = {}) {
  if (machine != CublasMachine()) NeedsTheEmulatedGpu();
  return cuda::kCublasName;
}

// Empty where the library is installed.
inline std::string WhyNoCublas() {
  if (dlopen(cuda::kCublasName, RTLD_NOW | RTLD_LOCAL) != nullptr) return "";
  return std::string("cuBLAS is not installed: ") + dlerror();
}

enum class CublasCall : std::uint8_t { kCreate, kSetStream, kSetWorkspace, kSetMathMode, kGemm };
inline void FailCublasLater(CublasCall, int, cublasStatus_t) { NeedsTheEmulatedGpu(); }
inline std::int64_t CublasProducts() {
  NeedsTheEmulatedGpu();
  return 0;
}
inline int CublasHandles() {
  NeedsTheEmulatedGpu();
  return 0;
}
inline std::string CublasRefusal() { return ""; }

}  // namespace millrace::emulation

#endif  // MILLRACE_TESTS_CUDA_SELFTEST_REAL_CUBLAS_H_
