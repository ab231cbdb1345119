#include "runtime/backend/cuda/weight_uploader.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/math.h"
#include "base/status.h"
#include "kernels/cuda/weight_layout.h"
#include "runtime/backend/cuda/cuda_status.h"

namespace millrace::cuda {
namespace {

// Large enough that a copy's start does not count (some 10 µs against 80 µs at 50 GB/s), small
// enough that laying out stays in a core's cache.
constexpr std::int64_t kPieceBytes = std::int64_t{4} << 20;

}  // namespace

// The runs of rows that a matrix is cut into; none across experts. Threads take them in turn.
struct WeightUploader::Pieces {
  Pieces(const ByteSource& source_in, const MatrixShape& shape_in, std::byte* to_in)
      : source(source_in), shape(shape_in), to(to_in) {
    row_bytes = RowBytes(shape.dtype, shape.k);
    expert_bytes = LaidOutBytes(shape.dtype, shape.rows, shape.k);
    const std::int64_t tile = LaidOutBytes(shape.dtype, kTileRows, shape.k);
    rows = std::max<std::int64_t>(1, kPieceBytes / tile) * kTileRows;
    each = CeilDivide(shape.rows, rows);
  }
  std::int64_t count() const { return shape.experts * each; }
  std::int64_t largest_bytes() const {
    return LaidOutBytes(shape.dtype, std::min(rows, shape.rows), shape.k);
  }

  const ByteSource& source;
  const MatrixShape shape;
  std::byte* const to;
  std::int64_t row_bytes;
  std::int64_t expert_bytes;
  std::int64_t rows;  // of a piece
  std::int64_t each;  // pieces of an expert
  std::atomic<std::int64_t> next{0};
};

absl::StatusOr<std::unique_ptr<WeightUploader>> WeightUploader::Create(std::int32_t device,
                                                                       int threads) {
  std::unique_ptr<WeightUploader> uploader(new WeightUploader(device));
  uploader->lanes_.resize(static_cast<std::size_t>(threads));
  for (Lane& lane : uploader->lanes_) {
    MILLRACE_ASSIGN_OR_RETURN(lane.stream, MakeStream());
    for (Event& event : lane.copied) {
      MILLRACE_ASSIGN_OR_RETURN(event, MakeEvent());
    }
  }
  return uploader;
}

absl::Status WeightUploader::RunLane(Pieces* pieces, Lane* lane) const {
  MILLRACE_RETURN_IF_ERROR(ToStatus(cudaSetDevice(device_), "opening the device"));
  const MatrixShape& shape = pieces->shape;
  for (std::size_t turn = 0;; turn = 1 - turn) {
    const std::int64_t piece = pieces->next.fetch_add(1, std::memory_order_relaxed);
    if (piece >= pieces->count()) break;
    const std::int64_t expert = piece / pieces->each;
    const std::int64_t row = piece % pieces->each * pieces->rows;
    const std::int64_t rows = std::min(pieces->rows, shape.rows - row);
    PinnedMemory& buffer = lane->buffers[turn];
    // What was copied from it before is there.
    MILLRACE_RETURN_IF_ERROR(
        ToStatus(cudaEventSynchronize(lane->copied[turn].get()), "copying weights"));
    if (buffer.bytes() < pieces->largest_bytes()) {
      MILLRACE_ASSIGN_OR_RETURN(buffer, PinnedMemory::Allocate(pieces->largest_bytes(),
                                                               "a piece of weights on the host"));
    }
    lane->rows.resize(static_cast<std::size_t>(rows * pieces->row_bytes));
    MILLRACE_RETURN_IF_ERROR(pieces->source.Read(
        static_cast<std::uint64_t>((expert * shape.rows + row) * pieces->row_bytes), lane->rows));
    LayOutWeights(shape.dtype, lane->rows.data(), rows, shape.k, buffer.data());
    std::byte* to =
        pieces->to + expert * pieces->expert_bytes + LaidOutBytes(shape.dtype, row, shape.k);
    MILLRACE_RETURN_IF_ERROR(
        ToStatus(cudaMemcpyAsync(to, buffer.data(),
                                 static_cast<std::size_t>(LaidOutBytes(shape.dtype, rows, shape.k)),
                                 cudaMemcpyHostToDevice, lane->stream.get()),
                 "copying weights"));
    MILLRACE_RETURN_IF_ERROR(
        ToStatus(cudaEventRecord(lane->copied[turn].get(), lane->stream.get()), "copying weights"));
  }
  return ToStatus(cudaStreamSynchronize(lane->stream.get()), "copying weights");
}

absl::Status WeightUploader::Upload(const ByteSource& source, const MatrixShape& shape,
                                    std::byte* to) {
  Pieces pieces(source, shape, to);
  const std::size_t lanes =
      std::min(lanes_.size(), static_cast<std::size_t>(std::max<std::int64_t>(1, pieces.count())));
  std::vector<absl::Status> results(lanes);
  std::vector<std::thread> helpers;
  for (std::size_t i = 1; i < lanes; ++i) {
    helpers.emplace_back([&, i] { results[i] = RunLane(&pieces, &lanes_[i]); });
  }
  results[0] = RunLane(&pieces, &lanes_[0]);
  for (std::thread& helper : helpers) helper.join();
  for (absl::Status& result : results) MILLRACE_RETURN_IF_ERROR(std::move(result));
  return absl::OkStatus();
}

}  // namespace millrace::cuda
