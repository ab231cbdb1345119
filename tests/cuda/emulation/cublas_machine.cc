#include "tests/cuda/emulation/cublas_machine.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <vector>

#include "kernels/dequantize.h"
#include "tests/cuda/emulation/cublas_functions.h"
#include "tests/cuda/emulation/runtime.h"

// A handle.
struct cublasContext {
  int device = 0;
  cudaStream_t stream = nullptr;
  std::byte* workspace = nullptr;
  std::size_t workspace_bytes = 0;
  cublasMath_t mode = CUBLAS_DEFAULT_MATH;
};

namespace millrace::emulation {
namespace {

// What every product overwrites of its workspace, at both ends.
constexpr std::size_t kUsedWorkspace = 4096;
// Rows beside which a sum is added up in one more part.
constexpr int kRowsOfPart = 48;

struct PlannedStatus {
  CublasCall call;
  int after;
  cublasStatus_t status;
};

struct State {
  std::mutex mutex;
  CublasMachine machine;
  std::vector<PlannedStatus> faults;
  std::set<cublasHandle_t> handles;
  std::int64_t products = 0;
  std::string refusal;
};

State& Get() {
  static auto* state = new State;  // outlives the static objects of tests
  return *state;
}

// A planned fault, or success. Under the lock, as all below.
cublasStatus_t Planned(CublasCall call) {
  std::vector<PlannedStatus>& faults = Get().faults;
  for (auto it = faults.begin(); it != faults.end(); ++it) {
    if (it->call != call || it->after-- > 0) continue;
    const cublasStatus_t status = it->status;
    faults.erase(it);
    return status;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t Refuse(const std::string& why) {
  Get().refusal = why;
  std::fprintf(stderr, "emulated cuBLAS: %s\n", why.c_str());
  return CUBLAS_STATUS_INVALID_VALUE;
}

bool IsHandle(cublasHandle_t handle) {
  return Get().handles.count(handle) == 1 && handle->device == current_device;
}

// Whether bytes [begin, begin + bytes) are of one allocation of device memory.
bool IsDeviceMemory(const void* begin, std::size_t bytes) {
  Runtime& runtime = Runtime::Get();
  const Lock lock(runtime.mutex_);
  const auto after = runtime.device_.upper_bound(const_cast<void*>(begin));
  if (after == runtime.device_.begin()) return false;
  const auto& [start, allocation] = *std::prev(after);
  return static_cast<const std::byte*>(begin) + bytes <=
         static_cast<const std::byte*>(start) + allocation.bytes;
}

bool IsAligned(const void* pointer, std::size_t to) {
  return reinterpret_cast<std::uintptr_t>(pointer) % to == 0;
}

// One product, as the caller sees it: columns lie one after the other.
struct Gemm {
  int m, n, k;
  const std::uint16_t* a;
  int lda;
  const std::uint16_t* b;
  int ldb;
  float beta;
  float* c;
  int ldc;
  cudaDataType_t type;
  std::byte* workspace;
  std::size_t workspace_bytes;
};

std::vector<float> Widened(const std::uint16_t* column, int k, cudaDataType_t type) {
  std::vector<float> out(static_cast<std::size_t>(k));
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = type == CUDA_R_16F ? HalfToFloat(column[i]) : Bfloat16ToFloat(column[i]);
  }
  return out;
}

// In float32, as a GPU adds up parts of k that it shares out by how many rows there are.
float Dot(const std::vector<float>& a, const std::vector<float>& b, int parts) {
  float sum = 0.0F;
  for (std::size_t p = 0; p < static_cast<std::size_t>(parts); ++p) {
    float part = 0.0F;
    for (std::size_t i = p; i < a.size(); i += static_cast<std::size_t>(parts)) {
      part += a[i] * b[i];
    }
    sum += part;
  }
  return sum;
}

void Compute(const Gemm& g) {
  // As far as callers can tell, its workspace holds anything afterwards.
  const std::size_t used = std::min(kUsedWorkspace, g.workspace_bytes / 2);
  std::memset(g.workspace, 0xFF, used);
  std::memset(g.workspace + g.workspace_bytes - used, 0xFF, used);
  const int parts = 1 + g.n / kRowsOfPart;
  std::vector<std::vector<float>> rows;
  for (int j = 0; j < g.n; ++j) {
    rows.push_back(Widened(g.b + std::int64_t{j} * g.ldb, g.k, g.type));
  }
  for (int i = 0; i < g.m; ++i) {
    const std::vector<float> weights = Widened(g.a + std::int64_t{i} * g.lda, g.k, g.type);
    for (int j = 0; j < g.n; ++j) {
      float* const c = g.c + std::int64_t{j} * g.ldc + i;
      const float sum = Dot(weights, rows[static_cast<std::size_t>(j)], parts);
      *c = g.beta == 0.0F ? sum : sum + g.beta * *c;
    }
  }
}

cublasStatus_t GetProperty(libraryPropertyType type, int* value) {
  const std::lock_guard lock(Get().mutex);
  *value = type == MAJOR_VERSION ? Get().machine.major
                                 : (type == MINOR_VERSION ? Get().machine.minor : 0);
  return CUBLAS_STATUS_SUCCESS;
}

const char* GetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "CUBLAS_STATUS_UNKNOWN";
}

cublasStatus_t Create(cublasHandle_t* handle) {
  const std::lock_guard lock(Get().mutex);
  if (const cublasStatus_t status = Planned(CublasCall::kCreate); status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  *handle = new cublasContext;
  (*handle)->device = current_device;
  Get().handles.insert(*handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t Destroy(cublasHandle_t handle) {
  const std::lock_guard lock(Get().mutex);
  if (!IsHandle(handle)) return Refuse("no handle of this device to destroy");
  Get().handles.erase(handle);
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t SetStream(cublasHandle_t handle, cudaStream_t stream) {
  const std::lock_guard lock(Get().mutex);
  if (const cublasStatus_t status = Planned(CublasCall::kSetStream);
      status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  if (!IsHandle(handle)) return Refuse("no handle of this device");
  handle->stream = stream;
  handle->workspace = nullptr;  // its own again
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t SetWorkspace(cublasHandle_t handle, void* workspace, std::size_t bytes) {
  const std::lock_guard lock(Get().mutex);
  if (const cublasStatus_t status = Planned(CublasCall::kSetWorkspace);
      status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  if (!IsHandle(handle)) return Refuse("no handle of this device");
  if (!IsAligned(workspace, 256)) return Refuse("a workspace that is not aligned to 256");
  if (!IsDeviceMemory(workspace, bytes)) return Refuse("a workspace that is no device memory");
  handle->workspace = static_cast<std::byte*>(workspace);
  handle->workspace_bytes = bytes;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t SetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  const std::lock_guard lock(Get().mutex);
  if (const cublasStatus_t status = Planned(CublasCall::kSetMathMode);
      status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  if (!IsHandle(handle)) return Refuse("no handle of this device");
  handle->mode = mode;
  return CUBLAS_STATUS_SUCCESS;
}

// Bytes of `columns` columns of `rows` values.
std::size_t MatrixBytes(int columns, int rows, int leading, std::size_t value_bytes) {
  return (static_cast<std::size_t>(leading) * static_cast<std::size_t>(columns - 1) +
          static_cast<std::size_t>(rows)) *
         value_bytes;
}

// What is wrong with the arguments, or nothing.
std::string Complaint(const Gemm& g, cublasOperation_t trans_a, cublasOperation_t trans_b,
                      cudaDataType_t b_type, cudaDataType_t c_type, float alpha) {
  if (trans_a != CUBLAS_OP_T || trans_b != CUBLAS_OP_N) return "operations that nobody uses here";
  if (g.m <= 0 || g.n <= 0 || g.k <= 0) return "an empty product";
  if (g.lda < g.k || g.ldb < g.k || g.ldc < g.m) return "a leading dimension that is too small";
  if (b_type != g.type || c_type != CUDA_R_32F) return "types that do not go together";
  if (g.type != CUDA_R_16F && g.type != CUDA_R_16BF) return "inputs that are no 16-bit floats";
  if (alpha != 1.0F) return "an alpha that nobody uses here";
  // The real one falls back to slow kernels.
  if (!IsAligned(g.a, 16) || !IsAligned(g.b, 16) || g.lda % 8 != 0 || g.ldb % 8 != 0) {
    return "inputs that are not aligned to 16 bytes";
  }
  if (!IsDeviceMemory(g.a, MatrixBytes(g.m, g.k, g.lda, 2)) ||
      !IsDeviceMemory(g.b, MatrixBytes(g.n, g.k, g.ldb, 2)) ||
      !IsDeviceMemory(g.c, MatrixBytes(g.n, g.m, g.ldc, 4))) {
    return "a matrix that is no device memory";
  }
  return "";
}

cublasStatus_t GemmEx(cublasHandle_t handle, cublasOperation_t trans_a, cublasOperation_t trans_b,
                      int m, int n, int k, const void* alpha, const void* a, cudaDataType_t a_type,
                      int lda, const void* b, cudaDataType_t b_type, int ldb, const void* beta,
                      void* c, cudaDataType_t c_type, int ldc, cublasComputeType_t compute,
                      cublasGemmAlgo_t) {
  const std::lock_guard lock(Get().mutex);
  if (const cublasStatus_t status = Planned(CublasCall::kGemm); status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  if (!IsHandle(handle)) return Refuse("no handle of this device");
  if (handle->stream == nullptr) return Refuse("no stream was chosen");
  if (handle->workspace == nullptr) return Refuse("it would allocate a workspace in a step");
  if (compute != CUBLAS_COMPUTE_32F) return Refuse("sums that are not float32");
  if (handle->mode != CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION) {
    return Refuse("parts of sums that may be added in fewer bits");
  }
  const Gemm gemm = {m,
                     n,
                     k,
                     static_cast<const std::uint16_t*>(a),
                     lda,
                     static_cast<const std::uint16_t*>(b),
                     ldb,
                     *static_cast<const float*>(beta),
                     static_cast<float*>(c),
                     ldc,
                     a_type,
                     handle->workspace,
                     handle->workspace_bytes};
  const std::string complaint =
      Complaint(gemm, trans_a, trans_b, b_type, c_type, *static_cast<const float*>(alpha));
  if (!complaint.empty()) return Refuse(complaint);
  ++Get().products;
  const cudaStream_t stream = handle->stream;
  const cudaError_t error = Do(std::nullopt, [&](Runtime* runtime, Lock*) {
    return runtime->Put(stream, [gemm] { Compute(gemm); });
  });
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

constexpr CublasFunctions kFunctions = {GetProperty, GetStatusName, Create,      Destroy,
                                        SetStream,   SetWorkspace,  SetMathMode, GemmEx};

// Opens the library, which stays, and gives it this GPU.
void Connect(const std::string& path) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  const auto connect = library == nullptr
                           ? nullptr
                           : reinterpret_cast<ConnectCublas>(dlsym(library, kConnectCublas));
  if (connect == nullptr) {
    std::fprintf(stderr, "emulated cuBLAS: %s\n", dlerror());
    std::abort();
  }
  connect(&kFunctions);
}

}  // namespace

std::string CublasLibrary(const CublasMachine& machine) {
  static const std::string path = [] {
    Connect(MILLRACE_CUBLAS_STAND_IN);
    return MILLRACE_CUBLAS_STAND_IN;
  }();
  const std::lock_guard lock(Get().mutex);
  Get().machine = machine;
  Get().faults.clear();
  Get().products = 0;
  Get().refusal.clear();
  return path;
}

void FailCublasLater(CublasCall call, int after, cublasStatus_t status) {
  const std::lock_guard lock(Get().mutex);
  Get().faults.push_back({call, after, status});
}

std::int64_t CublasProducts() {
  const std::lock_guard lock(Get().mutex);
  return Get().products;
}
int CublasHandles() {
  const std::lock_guard lock(Get().mutex);
  return static_cast<int>(Get().handles.size());
}
std::string CublasRefusal() {
  const std::lock_guard lock(Get().mutex);
  return Get().refusal;
}

}  // namespace millrace::emulation
