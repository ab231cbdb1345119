// What the library that is opened (cublas_stand_in.cc) calls of the emulated GPU of the program
// that opened it: it has none of its own. Test code.
#ifndef MILLRACE_TESTS_CUDA_EMULATION_CUBLAS_FUNCTIONS_H_
#define MILLRACE_TESTS_CUDA_EMULATION_CUBLAS_FUNCTIONS_H_

#include <cublas_v2.h>

namespace millrace::emulation {

struct CublasFunctions {
  decltype(&cublasGetProperty) get_property;
  decltype(&cublasGetStatusName) get_status_name;
  decltype(&cublasCreate_v2) create;
  decltype(&cublasDestroy_v2) destroy;
  decltype(&cublasSetStream_v2) set_stream;
  decltype(&cublasSetWorkspace_v2) set_workspace;
  decltype(&cublasSetMathMode) set_math_mode;
  decltype(&cublasGemmEx) gemm_ex;
};

// The library exports one more function: it takes the table, which lives as long as the program.
inline constexpr char kConnectCublas[] = "millrace_connect_cublas";
using ConnectCublas = void (*)(const CublasFunctions*);

}  // namespace millrace::emulation

#endif  // MILLRACE_TESTS_CUDA_EMULATION_CUBLAS_FUNCTIONS_H_
