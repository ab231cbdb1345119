#include "runtime/backend/cpu/weight_store.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "kernels/dequantize.h"

namespace millrace::cpu {
namespace {

// Large enough that a read is sequential, small enough that two readers share the end of a tensor.
constexpr std::int64_t kChunkBytes = std::int64_t{16} << 20;
// One thread does not saturate the page cache's copy on most machines; more than two gain little.
constexpr int kReaders = 2;

absl::Status ReadAll(const ByteSource& source, std::span<std::byte> out) {
  const auto size = static_cast<std::int64_t>(out.size());
  std::atomic<std::int64_t> next{0};
  std::array<absl::Status, kReaders> results;
  const auto read = [&](int reader) {
    while (results[reader].ok()) {
      const std::int64_t begin = next.fetch_add(kChunkBytes, std::memory_order_relaxed);
      if (begin >= size) return;
      const std::int64_t count = std::min(kChunkBytes, size - begin);
      results[reader] = source.Read(
          static_cast<std::uint64_t>(begin),
          out.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count)));
    }
  };
  if (size <= kChunkBytes) {
    read(0);
  } else {
    std::thread helper(read, 1);
    read(0);
    helper.join();
  }
  for (absl::Status& result : results) MILLRACE_RETURN_IF_ERROR(std::move(result));
  return absl::OkStatus();
}

absl::Status Describe(std::string_view name, const Weight& weight, const ByteSource& source) {
  const std::uint64_t wanted =
      static_cast<std::uint64_t>(weight.experts * weight.rows * weight.row_bytes);
  if (source.size_bytes() == wanted && wanted > 0) return absl::OkStatus();
  if (source.size_bytes() == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor '", std::string(name), "': matmul weight has EMPTY data buffer (in_dim=", weight.k,
        ", out_dim=", weight.rows, ", qtype=", std::string(Info(weight.dtype).name), ")"));
  }
  return absl::InvalidArgumentError(absl::StrCat("tensor '", std::string(name), "' has ",
                                                 source.size_bytes(), " bytes; its shape needs ",
                                                 wanted));
}

}  // namespace

absl::StatusOr<WeightId> WeightStore::Load(std::string_view name, DType dtype,
                                           std::span<const std::int64_t> shape,
                                           const ByteSource& source) {
  const bool positive =
      std::all_of(shape.begin(), shape.end(), [](std::int64_t d) { return d > 0; });
  if (shape.empty() || shape.size() > 3 || !positive ||
      shape.back() % Info(dtype).block_values != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor '", std::string(name), "': want 1 to 3 dimensions, rows of whole blocks"));
  }
  auto weight = std::make_unique<Weight>();
  weight->name = name;
  weight->dtype = dtype;
  weight->k = shape.back();
  weight->rows = shape.size() >= 2 ? shape[shape.size() - 2] : 1;
  weight->experts = shape.size() == 3 ? shape[0] : 1;
  weight->row_bytes = RowBytes(dtype, weight->k);
  MILLRACE_RETURN_IF_ERROR(Describe(name, *weight, source));
  MILLRACE_ASSIGN_OR_RETURN(
      weight->bytes, HugeBuffer::Allocate(static_cast<std::int64_t>(source.size_bytes()), name));
  MILLRACE_RETURN_IF_ERROR(
      ReadAll(source, {weight->bytes.data(), static_cast<std::size_t>(weight->bytes.size())}));
  if (shape.size() == 1 && dtype != DType::kF32) {
    MILLRACE_ASSIGN_OR_RETURN(HugeBuffer floats, HugeBuffer::Allocate(weight->k * 4, name));
    DequantizeRow(dtype, weight->bytes.data(), weight->k, reinterpret_cast<float*>(floats.data()));
    weight->bytes = std::move(floats);
    weight->dtype = DType::kF32;
    weight->row_bytes = weight->k * 4;
  }
  bytes_ += weight->bytes.size();
  weights_.push_back(std::move(weight));
  return WeightId(static_cast<std::int32_t>(weights_.size()) - 1);
}

}  // namespace millrace::cpu
