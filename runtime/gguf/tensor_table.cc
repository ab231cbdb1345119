#include "runtime/gguf/tensor_table.h"

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "runtime/gguf/checked_math.h"
#include "runtime/gguf/gguf_text.h"

namespace millrace {
namespace {

constexpr std::uint64_t kMaxTensors = 16384;
constexpr std::uint64_t kMaxNameBytes = 63;  // GGML_MAX_NAME is 64 with the terminator
constexpr std::uint32_t kMaxDims = 4;
// Length and byte of the name, number of dimensions, one dimension, type, offset.
constexpr std::uint64_t kSmallestEntryBytes = 8 + 1 + 4 + 8 + 4 + 8;

using Dims = std::vector<std::uint64_t>;

std::string Named(std::string_view name) { return "tensor " + Quoted(name); }

absl::StatusOr<std::string_view> ParseName(HeaderReader* reader, std::uint64_t index) {
  const std::string what = absl::StrCat("the name of tensor number ", index);
  MILLRACE_ASSIGN_OR_RETURN(const std::string_view name, reader->ReadString(what, kMaxNameBytes));
  if (name.empty() || !IsPrintableUtf8(name)) {
    return BadGguf(absl::StrCat(what, ", ", Quoted(name), ", is empty or not printable UTF-8"));
  }
  return name;
}

// Innermost first, as in the file.
absl::StatusOr<Dims> ParseDims(HeaderReader* reader, std::string_view name) {
  const auto count = reader->Read<std::uint32_t>();
  if (!count) return reader->EndStatus(Named(name));
  if (*count < 1 || *count > kMaxDims) {
    return BadGguf(absl::StrCat(Named(name), " has ", *count, " dimensions; 1 to ", kMaxDims,
                                " are supported"));
  }
  Dims dims;
  for (std::uint32_t i = 0; i < *count; ++i) {
    const auto dim = reader->Read<std::uint64_t>();
    if (!dim) return reader->EndStatus(Named(name));
    if (*dim == 0) return BadGguf(absl::StrCat(Named(name), ": dimension ", i, " is zero"));
    dims.push_back(*dim);
  }
  return dims;
}

absl::StatusOr<DType> ParseType(HeaderReader* reader, std::string_view name) {
  const auto type = reader->Read<std::uint32_t>();
  if (!type) return reader->EndStatus(Named(name));
  if (const auto dtype = DTypeFromGgml(*type)) return *dtype;
  return absl::UnimplementedError(absl::StrCat("GGUF: ", Named(name), " has type ", *type, " (",
                                               std::string(GgmlTypeName(*type)),
                                               "); supported are ", SupportedTypes()));
}

absl::StatusOr<std::uint64_t> SizeBytes(std::string_view name, DType dtype, const Dims& dims) {
  const DTypeInfo& info = Info(dtype);
  if (dims[0] % static_cast<std::uint64_t>(info.block_values) != 0) {
    return BadGguf(absl::StrCat(Named(name), ": rows of ", dims[0], " values are no multiple of ",
                                info.block_values, ", the block of ", std::string(info.name)));
  }
  if (const auto bytes = CheckedTensorBytes(dtype, dims)) return *bytes;
  return BadGguf(absl::StrCat(Named(name), ": dimensions ", absl::StrJoin(dims, " x "),
                              " are more than 2^63 bytes of ", std::string(info.name)));
}

// An entry; offset_bytes is from the start of the data until Place.
absl::StatusOr<GgufTensor> ParseTensor(HeaderReader* reader, std::uint64_t index) {
  GgufTensor tensor;
  MILLRACE_ASSIGN_OR_RETURN(tensor.name, ParseName(reader, index));
  MILLRACE_ASSIGN_OR_RETURN(const Dims dims, ParseDims(reader, tensor.name));
  MILLRACE_ASSIGN_OR_RETURN(tensor.dtype, ParseType(reader, tensor.name));
  MILLRACE_ASSIGN_OR_RETURN(tensor.size_bytes, SizeBytes(tensor.name, tensor.dtype, dims));
  tensor.shape.assign(dims.rbegin(), dims.rend());
  const auto offset = reader->Read<std::uint64_t>();
  if (!offset) return reader->EndStatus(Named(tensor.name));
  tensor.offset_bytes = *offset;
  return tensor;
}

absl::Status Place(std::uint64_t data_begin, std::uint64_t alignment, std::uint64_t file_bytes,
                   GgufTensor* tensor) {
  const std::uint64_t offset = tensor->offset_bytes;
  if (offset % alignment != 0) {
    return BadGguf(absl::StrCat(Named(tensor->name), ": offset ", offset,
                                " is no multiple of the alignment, ", alignment));
  }
  const auto begin = CheckedAdd(data_begin, offset);
  const auto end = begin ? CheckedAdd(*begin, tensor->size_bytes) : std::nullopt;
  if (!end || *end > file_bytes) {
    return BadGguf(absl::StrCat(Named(tensor->name), ": its ", tensor->size_bytes,
                                " bytes at offset ", offset, " of the data, which begins at ",
                                data_begin, ", end beyond the file of ", file_bytes, " bytes"));
  }
  tensor->offset_bytes = *begin;
  return absl::OkStatus();
}

absl::Status RefuseOverlaps(const std::vector<GgufTensor>& tensors) {
  std::vector<const GgufTensor*> order;
  order.reserve(tensors.size());
  for (const GgufTensor& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const GgufTensor* a, const GgufTensor* b) {
    return a->offset_bytes < b->offset_bytes;
  });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const GgufTensor& before = *order[i - 1];
    if (before.offset_bytes + before.size_bytes <= order[i]->offset_bytes) continue;
    return BadGguf(absl::StrCat(Named(before.name), " and ", Named(order[i]->name),
                                " overlap at byte ", order[i]->offset_bytes));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTensorCount(const HeaderReader& reader, std::uint64_t count) {
  return reader.CheckCount("tensors", count, kMaxTensors, kSmallestEntryBytes);
}

absl::StatusOr<std::vector<GgufTensor>> ParseTensorTable(HeaderReader* reader, std::uint64_t count,
                                                         std::uint64_t alignment) {
  MILLRACE_RETURN_IF_ERROR(CheckTensorCount(*reader, count));  // again: the keys took their share
  std::vector<GgufTensor> tensors;
  tensors.reserve(count);
  std::unordered_set<std::string_view> names;
  for (std::uint64_t i = 0; i < count; ++i) {
    MILLRACE_ASSIGN_OR_RETURN(GgufTensor tensor, ParseTensor(reader, i));
    if (!names.insert(tensor.name).second) {
      return BadGguf(Named(tensor.name) + " stands in the file twice");
    }
    tensors.push_back(std::move(tensor));
  }
  // Cannot wrap: the position is at most the size of the file.
  const std::uint64_t data_begin = *CheckedAlign(reader->position(), alignment);
  for (GgufTensor& tensor : tensors) {
    MILLRACE_RETURN_IF_ERROR(Place(data_begin, alignment, reader->file_bytes(), &tensor));
  }
  MILLRACE_RETURN_IF_ERROR(RefuseOverlaps(tensors));
  return tensors;
}

}  // namespace millrace
