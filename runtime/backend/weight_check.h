// What every backend asks of a tensor before it takes it. Thread-safe (pure).
#ifndef MILLRACE_RUNTIME_BACKEND_WEIGHT_CHECK_H_
#define MILLRACE_RUNTIME_BACKEND_WEIGHT_CHECK_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "base/byte_source.h"
#include "kernels/dtype.h"

namespace millrace {

// INVALID_ARGUMENT naming the tensor unless it has 1 to 3 positive dimensions (outermost first),
// rows of whole blocks, and as many bytes as they need.
absl::Status CheckWeight(std::string_view name, DType dtype, std::span<const std::int64_t> shape,
                         const ByteSource& source);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_BACKEND_WEIGHT_CHECK_H_
