#include "runtime/runner/verify_model.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/sha256.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "kernels/dequantize.h"
#include "runtime/gguf/gguf_text.h"

namespace millrace {
namespace {

// Read at once: large reads leave no page cache behind them, see runtime/gguf/file_source.cc.
constexpr std::uint64_t kChunkBytes = std::uint64_t{16} << 20;
// Values that a task turns into floats; a multiple of every block.
constexpr std::int64_t kTaskValues = 1 << 15;
constexpr std::uint64_t kNowhere = UINT64_MAX;

bool IsFinite(float value) {
  return (std::bit_cast<std::uint32_t>(value) & 0x7F800000U) != 0x7F800000U;
}

class Verifier {
 public:
  Verifier(const GgufFile& file, int threads,
           const std::function<void(std::uint64_t, std::uint64_t)>& progress)
      : file_(file), pool_(threads), progress_(progress), chunk_(kChunkBytes) {}

  absl::StatusOr<VerifyReport> Run() {
    for (std::size_t part = 0; part < file_.paths().size(); ++part) {
      MILLRACE_RETURN_IF_ERROR(WithContext(file_.paths()[part], VerifyPart(part)));
    }
    return std::move(report_);
  }

 private:
  absl::Status VerifyPart(std::size_t part) {
    std::vector<const GgufTensor*> tensors;
    for (const GgufTensor& tensor : file_.tensors()) {
      if (tensor.part == part) tensors.push_back(&tensor);
    }
    std::sort(tensors.begin(), tensors.end(), [](const GgufTensor* a, const GgufTensor* b) {
      return a->offset_bytes < b->offset_bytes;
    });
    const std::shared_ptr<const ByteSource> source = file_.PartSource(part);
    Sha256 hash;
    std::uint64_t at = 0;
    for (const GgufTensor* tensor : tensors) {
      MILLRACE_RETURN_IF_ERROR(HashOnly(*source, at, tensor->offset_bytes, &hash));
      MILLRACE_RETURN_IF_ERROR(HashAndCheck(*source, *tensor, &hash));
      at = tensor->offset_bytes + tensor->size_bytes;
    }
    MILLRACE_RETURN_IF_ERROR(HashOnly(*source, at, source->size_bytes(), &hash));
    report_.files.push_back({file_.paths()[part], source->size_bytes(), hash.Finish()});
    return absl::OkStatus();
  }

  // The header, and what lies between and behind tensors.
  absl::Status HashOnly(const ByteSource& source, std::uint64_t begin, std::uint64_t end,
                        Sha256* hash) {
    while (begin < end) {
      MILLRACE_ASSIGN_OR_RETURN(const auto bytes, ReadChunk(source, begin, end));
      hash->Add(bytes);
      begin += bytes.size();
    }
    return absl::OkStatus();
  }

  // Worker 0 hashes a chunk while the others look at its values; then it helps them.
  absl::Status HashAndCheck(const ByteSource& source, const GgufTensor& tensor, Sha256* hash) {
    std::atomic<std::uint64_t> first_fault = kNowhere;
    std::uint64_t values_before = 0;
    const std::uint64_t end = tensor.offset_bytes + tensor.size_bytes;
    for (std::uint64_t begin = tensor.offset_bytes; begin < end;) {
      MILLRACE_ASSIGN_OR_RETURN(const auto bytes,
                                ReadChunk(source, begin, end, Info(tensor.dtype).block_bytes));
      const auto values = static_cast<std::int64_t>(bytes.size()) / Info(tensor.dtype).block_bytes *
                          Info(tensor.dtype).block_values;
      TaskCursor cursor;
      pool_.Run([&](int worker) {
        if (worker == 0) hash->Add(bytes);
        CheckValues(tensor.dtype, bytes, values, values_before, &cursor, &first_fault);
      });
      begin += bytes.size();
      values_before += static_cast<std::uint64_t>(values);
    }
    if (first_fault != kNowhere) AddFault(tensor, first_fault);
    return absl::OkStatus();
  }

  static void CheckValues(DType dtype, std::span<const std::byte> bytes, std::int64_t values,
                          std::uint64_t values_before, TaskCursor* cursor,
                          std::atomic<std::uint64_t>* first_fault) {
    std::vector<float> floats(static_cast<std::size_t>(std::min(kTaskValues, values)));
    for (;;) {
      const std::int64_t begin = cursor->Next() * kTaskValues;
      if (begin >= values) return;
      const std::int64_t count = std::min(kTaskValues, values - begin);
      DequantizeRow(dtype, bytes.data() + RowBytes(dtype, begin), count, floats.data());
      const auto end = floats.begin() + count;
      const auto fault = std::find_if_not(floats.begin(), end, IsFinite);
      if (fault == end) continue;
      const std::uint64_t at =
          values_before + static_cast<std::uint64_t>(begin + (fault - floats.begin()));
      std::uint64_t first = first_fault->load();
      while (at < first && !first_fault->compare_exchange_weak(first, at)) {
      }
    }
  }

  // At most a chunk of [begin, end), a multiple of `unit` bytes.
  absl::StatusOr<std::span<const std::byte>> ReadChunk(const ByteSource& source,
                                                       std::uint64_t begin, std::uint64_t end,
                                                       std::int64_t unit = 1) {
    const std::uint64_t most =
        kChunkBytes / static_cast<std::uint64_t>(unit) * static_cast<std::uint64_t>(unit);
    const std::span<std::byte> out(chunk_.data(), std::min(most, end - begin));
    MILLRACE_RETURN_IF_ERROR(source.Read(begin, out));
    read_bytes_ += out.size();
    if (progress_) progress_(read_bytes_, file_.file_bytes());
    return out;
  }

  void AddFault(const GgufTensor& tensor, std::uint64_t at) {
    const auto k = static_cast<std::uint64_t>(tensor.shape.back());
    report_.faults.push_back(absl::StrCat(file_.paths()[tensor.part], ": GGUF: tensor ",
                                          Quoted(tensor.name), ": value ", at % k, " of row ",
                                          at / k, " is no finite number"));
  }

  const GgufFile& file_;
  ThreadPool pool_;
  const std::function<void(std::uint64_t, std::uint64_t)>& progress_;
  std::vector<std::byte> chunk_;
  std::uint64_t read_bytes_ = 0;
  VerifyReport report_;
};

}  // namespace

absl::StatusOr<VerifyReport> VerifyModel(
    const GgufFile& file, int threads,
    const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  return Verifier(file, threads, progress).Run();
}

}  // namespace millrace
