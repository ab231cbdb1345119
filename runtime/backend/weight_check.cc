#include "runtime/backend/weight_check.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace millrace {

absl::Status CheckWeight(std::string_view name, DType dtype, std::span<const std::int64_t> shape,
                         const ByteSource& source) {
  const bool positive =
      std::all_of(shape.begin(), shape.end(), [](std::int64_t d) { return d > 0; });
  if (shape.empty() || shape.size() > 3 || !positive ||
      shape.back() % Info(dtype).block_values != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor '", std::string(name), "': want 1 to 3 dimensions, rows of whole blocks"));
  }
  const std::int64_t k = shape.back();
  const std::int64_t rows = shape.size() >= 2 ? shape[shape.size() - 2] : 1;
  const std::int64_t experts = shape.size() == 3 ? shape[0] : 1;
  const auto wanted = static_cast<std::uint64_t>(experts * rows * RowBytes(dtype, k));
  if (source.size_bytes() == wanted) return absl::OkStatus();
  if (source.size_bytes() == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor '", std::string(name), "': matmul weight has EMPTY data buffer (in_dim=", k,
        ", out_dim=", rows, ", qtype=", std::string(Info(dtype).name), ")"));
  }
  return absl::InvalidArgumentError(absl::StrCat("tensor '", std::string(name), "' has ",
                                                 source.size_bytes(), " bytes; its shape needs ",
                                                 wanted));
}

}  // namespace millrace
