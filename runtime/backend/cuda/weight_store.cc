#include "runtime/backend/cuda/weight_store.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "kernels/dequantize.h"
#include "runtime/backend/cuda/cuda_status.h"
#include "runtime/backend/cuda_weight_bytes.h"
#include "runtime/backend/weight_check.h"

namespace millrace::cuda {

absl::Status WeightStore::LoadVector(const ByteSource& source, Weight* weight) {
  const MatrixShape& shape = weight->shape;
  std::vector<std::byte> row(static_cast<std::size_t>(RowBytes(shape.dtype, shape.k)));
  MILLRACE_RETURN_IF_ERROR(source.Read(0, row));
  std::vector<float> values(static_cast<std::size_t>(shape.k));
  DequantizeRow(shape.dtype, row.data(), shape.k, values.data());
  weight->shape.dtype = DType::kF32;
  return ToStatus(cudaMemcpy(weight->bytes.data(), values.data(), values.size() * sizeof(float),
                             cudaMemcpyHostToDevice),
                  "copying weights");
}

absl::StatusOr<WeightId> WeightStore::Load(std::string_view name, DType dtype,
                                           std::span<const std::int64_t> shape,
                                           const ByteSource& source) {
  MILLRACE_RETURN_IF_ERROR(CheckWeight(name, dtype, shape, source));
  auto weight = std::make_unique<Weight>();
  weight->shape = {.dtype = dtype,
                   .experts = shape.size() == 3 ? shape[0] : 1,
                   .rows = shape.size() >= 2 ? shape[shape.size() - 2] : 1,
                   .k = shape.back()};
  const bool vector = shape.size() == 1;
  const std::int64_t bytes = CudaWeightBytes(dtype, shape);
  MILLRACE_ASSIGN_OR_RETURN(
      weight->bytes,
      DeviceMemory::Allocate(bytes, absl::StrCat("tensor '", std::string(name), "'")));
  if (vector) {
    MILLRACE_RETURN_IF_ERROR(LoadVector(source, weight.get()));
  } else {
    if (uploader_ == nullptr) {
      MILLRACE_ASSIGN_OR_RETURN(uploader_, WeightUploader::Create(device_, threads_));
    }
    MILLRACE_RETURN_IF_ERROR(uploader_->Upload(source, weight->shape, weight->bytes.data()));
  }
  bytes_ += bytes;
  weights_.push_back(std::move(weight));
  return WeightId(static_cast<std::int32_t>(weights_.size()) - 1);
}

}  // namespace millrace::cuda
