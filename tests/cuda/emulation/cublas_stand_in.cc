// A library with the names of cuBLAS, opened as that is. All it does is call the emulated GPU of
// the program that opened it (cublas_machine.cc).
#include "tests/cuda/emulation/cublas_functions.h"

namespace {

const millrace::emulation::CublasFunctions* connected = nullptr;

}  // namespace

extern "C" {

void millrace_connect_cublas(const millrace::emulation::CublasFunctions* functions) {
  connected = functions;
}

cublasStatus_t cublasGetProperty(libraryPropertyType type, int* value) {
  return connected->get_property(type, value);
}
const char* cublasGetStatusName(cublasStatus_t status) {
  return connected->get_status_name(status);
}
cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) { return connected->create(handle); }
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) { return connected->destroy(handle); }
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  return connected->set_stream(handle, stream);
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, std::size_t bytes) {
  return connected->set_workspace(handle, workspace, bytes);
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  return connected->set_math_mode(handle, mode);
}
cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t trans_a,
                            cublasOperation_t trans_b, int m, int n, int k, const void* alpha,
                            const void* a, cudaDataType_t a_type, int lda, const void* b,
                            cudaDataType_t b_type, int ldb, const void* beta, void* c,
                            cudaDataType_t c_type, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t algorithm) {
  return connected->gemm_ex(handle, trans_a, trans_b, m, n, k, alpha, a, a_type, lda, b, b_type,
                            ldb, beta, c, c_type, ldc, compute, algorithm);
}

}  // extern "C"
