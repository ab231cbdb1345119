// The weights of the CPU backend: one copy each, in huge pages, read straight from their source. In
// this version the layout is the file's own blocks, row after row.
//
// Filled by one thread while loading, immutable afterwards. Owns the bytes.
#ifndef MILLRACE_RUNTIME_BACKEND_CPU_WEIGHT_STORE_H_
#define MILLRACE_RUNTIME_BACKEND_CPU_WEIGHT_STORE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/byte_source.h"
#include "kernels/dtype.h"
#include "runtime/backend/cpu/huge_buffer.h"
#include "runtime/backend/program.h"

namespace millrace::cpu {

// [experts][rows][k] in blocks of `dtype`; vectors have experts = rows = 1.
struct Weight {
  std::string name;
  DType dtype = DType::kF32;
  std::int64_t experts = 1;
  std::int64_t rows = 1;
  std::int64_t k = 0;
  std::int64_t row_bytes = 0;
  HugeBuffer bytes;

  const std::byte* expert(std::int64_t e) const { return bytes.data() + e * rows * row_bytes; }
  // REQUIRES: a vector, which the store keeps as float.
  const float* vector() const { return reinterpret_cast<const float*>(bytes.data()); }
};

class WeightStore {
 public:
  // As Backend::LoadWeight. Vectors (rank 1) of any float type become F32.
  absl::StatusOr<WeightId> Load(std::string_view name, DType dtype,
                                std::span<const std::int64_t> shape, const ByteSource& source);

  // REQUIRES: `id` came from Load.
  const Weight& Get(WeightId id) const { return *weights_[static_cast<std::size_t>(id.value())]; }
  std::int64_t bytes() const { return bytes_; }

 private:
  std::vector<std::unique_ptr<Weight>> weights_;
  std::int64_t bytes_ = 0;
};

}  // namespace millrace::cpu

#endif  // MILLRACE_RUNTIME_BACKEND_CPU_WEIGHT_STORE_H_
