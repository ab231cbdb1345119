// NVIDIA's library of matrix products, cuBLAS, for the option --matmul cublas. It is opened while
// the program runs and only where that is asked for: nothing links it, since it is 600 MB that
// neither the CPU's nor the exact kernels' images carry. Tests open a stand-in that computes on the
// CPU (tests/cuda/emulation/cublas_stand_in.cc).
//
// Driven by one thread. Owns the library's handle, not its workspace. The library, once open,
// stays.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_CUBLAS_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_CUBLAS_H_

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/half_rows.h"

namespace millrace::cuda {

// The name that CUDA 13's version has, in the loader's path.
inline constexpr char kCublasName[] = "libcublas.so.13";

// y[j][i] = beta * y[j][i] + sum over k of w[i][k] * x[j][k], for j < rows, i < n. Rows of w and x
// are HalfStride(k) apart; sums are float32.
struct CublasProduct {
  HalfType type = HalfType::kBF16;  // of w and x
  const std::uint16_t* w = nullptr;
  const std::uint16_t* x = nullptr;
  float* y = nullptr;
  std::int64_t y_stride = 0;
  std::int32_t n = 0;
  std::int32_t rows = 0;
  std::int64_t k = 0;
  float beta = 0.0F;
};

class Cublas {
 public:
  // `library` is a path, or a name for the loader. FAILED_PRECONDITION, one line, where it is not
  // there, does not load or is too old; UNAVAILABLE where it does not work on the thread's current
  // device.
  static absl::StatusOr<std::unique_ptr<Cublas>> Open(const std::string& library);
  ~Cublas();
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;

  // "13.1"
  std::string version() const { return version_; }

  // Products go to `stream` and use `workspace`, `bytes` of device memory, so that the library
  // allocates none. It outlives the products.
  absl::Status Use(cudaStream_t stream, std::byte* workspace, std::int64_t bytes);

  // Puts one product on the stream. REQUIRES: Use.
  absl::Status Multiply(const CublasProduct& product);

 private:
  struct Functions;
  Cublas(std::unique_ptr<Functions> functions, std::string version);
  absl::Status ToStatus(cublasStatus_t status, std::string_view doing) const;

  const std::unique_ptr<Functions> functions_;
  const std::string version_;
  cublasHandle_t handle_ = nullptr;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_CUBLAS_H_
