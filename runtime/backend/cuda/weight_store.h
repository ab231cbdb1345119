// The weights of the CUDA backend: one copy each, in device memory, laid out for its products.
//
// Filled by one thread while loading, immutable afterwards. Owns the device memory.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_WEIGHT_STORE_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_WEIGHT_STORE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/byte_source.h"
#include "runtime/backend/cuda/resources.h"
#include "runtime/backend/cuda/weight_uploader.h"
#include "runtime/backend/program.h"

namespace millrace::cuda {

// Vectors are [1][1][k] floats in order; matrices are laid out (kernels/cuda/weight_layout.h).
struct Weight {
  MatrixShape shape;
  DeviceMemory bytes;

  // REQUIRES: a vector.
  const float* vector() const { return reinterpret_cast<const float*>(bytes.data()); }
};

class WeightStore {
 public:
  WeightStore(std::int32_t device, int threads) : device_(device), threads_(threads) {}

  // As Backend::LoadWeight. Vectors (rank 1) of any type become F32.
  absl::StatusOr<WeightId> Load(std::string_view name, DType dtype,
                                std::span<const std::int64_t> shape, const ByteSource& source);

  // No more weights come: gives the pinned memory back.
  void FinishLoading() { uploader_.reset(); }

  // REQUIRES: `id` came from Load.
  const Weight& Get(WeightId id) const { return *weights_[static_cast<std::size_t>(id.value())]; }
  const Weight* GetOrNull(WeightId id) const { return id == kNoWeight ? nullptr : &Get(id); }
  std::int64_t bytes() const { return bytes_; }

 private:
  absl::Status LoadVector(const ByteSource& source, Weight* weight);

  const std::int32_t device_;
  const int threads_;
  std::unique_ptr<WeightUploader> uploader_;  // made for the first weight
  std::vector<std::unique_ptr<Weight>> weights_;
  std::int64_t bytes_ = 0;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_WEIGHT_STORE_H_
