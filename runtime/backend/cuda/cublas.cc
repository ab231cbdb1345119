#include "runtime/backend/cuda/cublas.h"

#include <dlfcn.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace millrace::cuda {
namespace {

// Its headers are what we are compiled with; older ones number types and modes otherwise.
constexpr int kLeastMajor = 13;

cudaDataType_t DataType(HalfType type) { return type == HalfType::kF16 ? CUDA_R_16F : CUDA_R_16BF; }

}  // namespace

// The functions that are called, with the types of cublas_v2.h. Those that have a second version
// carry it in their name.
struct Cublas::Functions {
  decltype(&cublasGetProperty) get_property = nullptr;
  decltype(&cublasGetStatusName) get_status_name = nullptr;
  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasDestroy_v2) destroy = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  decltype(&cublasSetWorkspace_v2) set_workspace = nullptr;
  decltype(&cublasSetMathMode) set_math_mode = nullptr;
  // Of its overloads the one that takes a cublasComputeType_t.
  cublasStatus_t (*gemm_ex)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                            const void*, const void*, cudaDataType_t, int, const void*,
                            cudaDataType_t, int, const void*, void*, cudaDataType_t, int,
                            cublasComputeType_t, cublasGemmAlgo_t) = nullptr;

  // The name of a function that the library lacks, or null.
  const char* Find(void* library) {
    const auto find = [library](const char* name, auto* function) {
      *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(library, name));
      return *function == nullptr ? name : nullptr;
    };
    const char* const missing[] = {
        find("cublasGetProperty", &get_property),  find("cublasGetStatusName", &get_status_name),
        find("cublasCreate_v2", &create),          find("cublasDestroy_v2", &destroy),
        find("cublasSetStream_v2", &set_stream),   find("cublasSetWorkspace_v2", &set_workspace),
        find("cublasSetMathMode", &set_math_mode), find("cublasGemmEx", &gemm_ex),
    };
    for (const char* name : missing) {
      if (name != nullptr) return name;
    }
    return nullptr;
  }
};

Cublas::Cublas(std::unique_ptr<Functions> functions, std::string version)
    : functions_(std::move(functions)), version_(std::move(version)) {}

Cublas::~Cublas() {
  if (handle_ != nullptr) functions_->destroy(handle_);
}

absl::Status Cublas::ToStatus(cublasStatus_t status, std::string_view doing) const {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string text =
      absl::StrCat("CUDA: cuBLAS: ", std::string(doing), ": ", functions_->get_status_name(status));
  if (status == CUBLAS_STATUS_ALLOC_FAILED) return absl::ResourceExhaustedError(text);
  return absl::UnavailableError(text);
}

absl::StatusOr<std::unique_ptr<Cublas>> Cublas::Open(const std::string& library) {
  // Never closed: its kernels are loaded, and threads of its own may run.
  void* const opened = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    const char* error = dlerror();
    return absl::FailedPreconditionError(
        absl::StrCat("cuBLAS of CUDA 13 does not load: ", error == nullptr ? "unknown" : error));
  }
  auto functions = std::make_unique<Functions>();
  if (const char* missing = functions->Find(opened); missing != nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(library, " has no ", missing, "; want cuBLAS of CUDA 13"));
  }
  int major = 0;
  int minor = 0;
  if (functions->get_property(MAJOR_VERSION, &major) != CUBLAS_STATUS_SUCCESS ||
      functions->get_property(MINOR_VERSION, &minor) != CUBLAS_STATUS_SUCCESS ||
      major < kLeastMajor) {
    return absl::FailedPreconditionError(
        absl::StrCat(library, " is cuBLAS ", major, ".", minor, "; want that of CUDA 13"));
  }
  std::unique_ptr<Cublas> cublas(new Cublas(std::move(functions), absl::StrCat(major, ".", minor)));
  MILLRACE_RETURN_IF_ERROR(
      cublas->ToStatus(cublas->functions_->create(&cublas->handle_), "making a handle"));
  return cublas;
}

absl::Status Cublas::Use(cudaStream_t stream, std::byte* workspace, std::int64_t bytes) {
  // In this order: a new stream forgets the workspace.
  MILLRACE_RETURN_IF_ERROR(
      ToStatus(functions_->set_stream(handle_, stream), "choosing the stream"));
  MILLRACE_RETURN_IF_ERROR(
      ToStatus(functions_->set_workspace(handle_, workspace, static_cast<std::size_t>(bytes)),
               "choosing the workspace"));
  // Parts of a sum are added in float32 too, whatever the library splits it into.
  const auto mode = static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH |
                                              CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
  return ToStatus(functions_->set_math_mode(handle_, mode), "choosing the arithmetic");
}

// The library counts in columns: to it our rows of w are columns of its A, which it transposes, and
// our rows of x and y are columns of its B and C.
absl::Status Cublas::Multiply(const CublasProduct& p) {
  const float alpha = 1.0F;
  const int stride = static_cast<int>(HalfStride(p.k));
  const cudaDataType_t type = DataType(p.type);
  return ToStatus(
      functions_->gemm_ex(handle_, CUBLAS_OP_T, CUBLAS_OP_N, p.n, p.rows, static_cast<int>(p.k),
                          &alpha, p.w, type, stride, p.x, type, stride, &p.beta, p.y, CUDA_R_32F,
                          static_cast<int>(p.y_stride), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
      "multiplying");
}

}  // namespace millrace::cuda
