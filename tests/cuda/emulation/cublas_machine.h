// cuBLAS on the emulated GPU, as a library to be opened: it computes on the CPU, when the stream
// comes to it, and refuses arguments that the real one refuses or that leave its results to chance.
// Like the real one it may add a sum up in another order when there are other rows beside it. Which
// version it is and which call of it fails is set by tests. Thread-safe.
#ifndef MILLRACE_TESTS_CUDA_EMULATION_CUBLAS_MACHINE_H_
#define MILLRACE_TESTS_CUDA_EMULATION_CUBLAS_MACHINE_H_

#include <cublas_v2.h>

#include <cstdint>
#include <string>

namespace millrace::emulation {

struct CublasMachine {
  int major = 13;
  int minor = 1;
};

// The library's path, after forgetting faults and counts. REQUIRES: no handle of before is used.
std::string CublasLibrary(const CublasMachine& machine = {});

// Why there is none: the emulated GPU has one.
inline std::string WhyNoCublas() { return ""; }

enum class CublasCall : std::uint8_t { kCreate, kSetStream, kSetWorkspace, kSetMathMode, kGemm };
// The call `after` calls of its kind from now ends with `status`, once.
void FailCublasLater(CublasCall call, int after, cublasStatus_t status);

// Products put on a stream, handles that live, and the last argument that was refused.
std::int64_t CublasProducts();
int CublasHandles();
std::string CublasRefusal();

}  // namespace millrace::emulation

#endif  // MILLRACE_TESTS_CUDA_EMULATION_CUBLAS_MACHINE_H_
