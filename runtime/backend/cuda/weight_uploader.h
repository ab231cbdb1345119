// Brings weights to the device: several threads read pieces of a matrix, lay them out
// (kernels/cuda/weight_layout.h) in pinned memory of their own, and copy them while they read the
// next. So the file is read once and no whole tensor stands in host memory.
//
// Not thread-safe; owns its pinned buffers. Lives while a model loads.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_WEIGHT_UPLOADER_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_WEIGHT_UPLOADER_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/byte_source.h"
#include "kernels/dtype.h"
#include "runtime/backend/cuda/resources.h"

namespace millrace::cuda {

// [experts][rows][k] of a file.
struct MatrixShape {
  DType dtype = DType::kF32;
  std::int64_t experts = 1;
  std::int64_t rows = 1;
  std::int64_t k = 0;
};

class WeightUploader {
 public:
  // For the device `device`, with `threads` readers.
  static absl::StatusOr<std::unique_ptr<WeightUploader>> Create(std::int32_t device, int threads);

  // Fills `to`, [experts] times LaidOutBytes of device memory. Done when it returns.
  absl::Status Upload(const ByteSource& source, const MatrixShape& shape, std::byte* to);

 private:
  // One reader's: while one buffer is copied, the other is filled.
  struct Lane {
    Stream stream;
    std::array<PinnedMemory, 2> buffers;
    std::array<Event, 2> copied;
    std::vector<std::byte> rows;  // as the file has them
  };
  struct Pieces;

  explicit WeightUploader(std::int32_t device) : device_(device) {}
  absl::Status RunLane(Pieces* pieces, Lane* lane) const;

  const std::int32_t device_;
  std::vector<Lane> lanes_;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_WEIGHT_UPLOADER_H_
