#include "runtime/backend/cpu/weight_store.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/math.h"
#include "base/status.h"
#include "kernels/cpu/matmul.h"
#include "kernels/tile_layout.h"
#include "runtime/backend/weight_check.h"

namespace millrace::cpu {
namespace {

// Bytes of the file that a reader takes at once: it lays them out while they are in its
// second-level cache.
constexpr std::int64_t kPieceBytes = std::int64_t{256} << 10;
// One thread does not saturate the page cache's copy on most machines; more than two gain little.
constexpr int kReaders = 2;

// Reads the pieces of one weight: runs of whole tiles, none across experts. Several threads may
// call Run at once.
class TileReader {
 public:
  TileReader(const ByteSource& source, Weight* weight) : source_(source), weight_(*weight) {
    row_bytes_ = RowBytes(weight->dtype, weight->k);
    const std::int64_t tile = weight->tile_rows * row_bytes_;
    rows_ = std::max<std::int64_t>(1, kPieceBytes / tile) * weight->tile_rows;
    pieces_each_ = CeilDivide(weight->rows, rows_);
  }

  std::int64_t pieces() const { return weight_.experts * pieces_each_; }

  absl::Status Run() {
    std::vector<std::byte> piece;
    if (weight_.tile_rows > 1) piece.resize(static_cast<std::size_t>(rows_ * row_bytes_));
    while (true) {
      const std::int64_t next = next_.fetch_add(1, std::memory_order_relaxed);
      if (next >= pieces()) return absl::OkStatus();
      MILLRACE_RETURN_IF_ERROR(ReadPiece(next / pieces_each_, next % pieces_each_ * rows_, piece));
    }
  }

 private:
  absl::Status ReadPiece(std::int64_t expert, std::int64_t row, std::span<std::byte> piece) const {
    const std::int64_t rows = std::min(rows_, weight_.rows - row);
    const auto begin = static_cast<std::uint64_t>((expert * weight_.rows + row) * row_bytes_);
    const auto bytes = static_cast<std::size_t>(rows * row_bytes_);
    std::byte* out = weight_.bytes.data() + weight_.tile_offset(expert, row);
    if (weight_.tile_rows == 1) return source_.Read(begin, {out, bytes});
    MILLRACE_RETURN_IF_ERROR(source_.Read(begin, piece.first(bytes)));
    PackTiles(weight_.dtype, piece.data(), rows, weight_.k, weight_.tile_rows, out);
    return absl::OkStatus();
  }

  const ByteSource& source_;
  const Weight& weight_;
  std::int64_t row_bytes_;
  std::int64_t rows_;  // of a piece
  std::int64_t pieces_each_;
  std::atomic<std::int64_t> next_{0};
};

absl::Status ReadWeight(const ByteSource& source, Weight* weight) {
  TileReader reader(source, weight);
  if (reader.pieces() == 1) return reader.Run();
  std::array<absl::Status, kReaders> results;
  std::vector<std::thread> helpers;
  for (int i = 1; i < kReaders; ++i) {
    helpers.emplace_back([&results, &reader, i] { results[i] = reader.Run(); });
  }
  results[0] = reader.Run();
  for (std::thread& helper : helpers) helper.join();
  for (absl::Status& result : results) MILLRACE_RETURN_IF_ERROR(std::move(result));
  return absl::OkStatus();
}

// Names of tensors have at most 64 bytes, but for files that mean harm.
constexpr std::size_t kNameInCache = 1024;

}  // namespace

absl::Status WeightStore::Fill(const ByteSource& source, Weight* weight) {
  const std::int64_t bytes = weight->experts * weight->expert_bytes;
  // Vectors are small, and some are converted: they are read each time.
  WeightCache* const cache = weight->rows > 1 ? cache_.get() : nullptr;
  const std::string what = absl::StrCat(
      weight->name.substr(0, kNameInCache), " ", std::string(Info(weight->dtype).name), " ",
      weight->experts, "x", weight->rows, "x", weight->k, " in tiles of ", weight->tile_rows, "\n");
  if (cache != nullptr) {
    std::optional<HugeBuffer> mapped = cache->Map(what, bytes);
    if (mapped) {
      weight->bytes = *std::move(mapped);
      return absl::OkStatus();
    }
  }
  MILLRACE_ASSIGN_OR_RETURN(weight->bytes, HugeBuffer::Allocate(bytes, weight->name));
  MILLRACE_RETURN_IF_ERROR(ReadWeight(source, weight));
  if (cache != nullptr) {
    cache->Append(what, {weight->bytes.data(), static_cast<std::size_t>(weight->bytes.size())});
  }
  return absl::OkStatus();
}

void WeightStore::FinishLoading() {
  if (cache_ != nullptr) cache_->Finish();
  cache_.reset();
}

absl::StatusOr<WeightId> WeightStore::Load(std::string_view name, DType dtype,
                                           std::span<const std::int64_t> shape,
                                           const ByteSource& source) {
  MILLRACE_RETURN_IF_ERROR(CheckWeight(name, dtype, shape, source));
  auto weight = std::make_unique<Weight>();
  weight->name = name;
  weight->dtype = dtype;
  weight->k = shape.back();
  weight->rows = shape.size() >= 2 ? shape[shape.size() - 2] : 1;
  weight->experts = shape.size() == 3 ? shape[0] : 1;
  weight->tile_rows = SelectMatmul(dtype, isa_).tile_rows;
  weight->tile_bytes = TileBytes(dtype, weight->k, weight->tile_rows);
  weight->expert_bytes = TiledBytes(dtype, weight->rows, weight->k, weight->tile_rows);
  MILLRACE_RETURN_IF_ERROR(Fill(source, weight.get()));
  if (shape.size() == 1 && dtype != DType::kF32) {
    MILLRACE_ASSIGN_OR_RETURN(HugeBuffer floats, HugeBuffer::Allocate(weight->k * 4, name));
    DequantizeTiledRow(dtype, weight->bytes.data(), 0, weight->k, weight->tile_rows,
                       reinterpret_cast<float*>(floats.data()));
    weight->bytes = std::move(floats);
    weight->dtype = DType::kF32;
    weight->tile_rows = 1;
    weight->tile_bytes = weight->expert_bytes = weight->k * 4;
  }
  bytes_ += weight->bytes.size();
  weights_.push_back(std::move(weight));
  return WeightId(static_cast<std::int32_t>(weights_.size()) - 1);
}

}  // namespace millrace::cpu
