// The weights of the CPU backend: one copy each, in huge pages, laid out while they are read in the
// tiles that the level's products take (kernels/tile_layout.h), or mapped from a cache of that.
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
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/byte_source.h"
#include "kernels/cpu/isa.h"
#include "kernels/dtype.h"
#include "runtime/backend/cpu/huge_buffer.h"
#include "runtime/backend/cpu/weight_cache.h"
#include "runtime/backend/program.h"

namespace millrace::cpu {

// [experts][rows][k] in tiles of blocks of `dtype`; vectors have experts = rows = 1.
struct Weight {
  std::string name;
  DType dtype = DType::kF32;
  std::int64_t experts = 1;
  std::int64_t rows = 1;
  std::int64_t k = 0;
  std::int32_t tile_rows = 1;
  std::int64_t tile_bytes = 0;
  std::int64_t expert_bytes = 0;
  HugeBuffer bytes;

  const std::byte* expert(std::int64_t e) const { return bytes.data() + e * expert_bytes; }
  // The tile that begins with `row`, a multiple of tile_rows, of an expert.
  const std::byte* tile(std::int64_t e, std::int64_t row) const {
    return bytes.data() + tile_offset(e, row);
  }
  std::int64_t tile_offset(std::int64_t e, std::int64_t row) const {
    return e * expert_bytes + row / tile_rows * tile_bytes;
  }
  // REQUIRES: a vector, which the store keeps as float.
  const float* vector() const { return reinterpret_cast<const float*>(bytes.data()); }
};

class WeightStore {
 public:
  // `isa` is the level whose products will read the weights; `cache` may be null.
  WeightStore(Isa isa, std::unique_ptr<WeightCache> cache) : isa_(isa), cache_(std::move(cache)) {}

  // As Backend::LoadWeight. Vectors (rank 1) of any float type become F32.
  absl::StatusOr<WeightId> Load(std::string_view name, DType dtype,
                                std::span<const std::int64_t> shape, const ByteSource& source);

  // No more weights come.
  void FinishLoading();

  // REQUIRES: `id` came from Load.
  const Weight& Get(WeightId id) const { return *weights_[static_cast<std::size_t>(id.value())]; }
  std::int64_t bytes() const { return bytes_; }

 private:
  // The bytes of a matrix: from the cache, or laid out from the source and kept in the cache.
  absl::Status Fill(const ByteSource& source, Weight* weight);

  const Isa isa_;
  std::unique_ptr<WeightCache> cache_;
  std::vector<std::unique_ptr<Weight>> weights_;
  std::int64_t bytes_ = 0;
};

}  // namespace millrace::cpu

#endif  // MILLRACE_RUNTIME_BACKEND_CPU_WEIGHT_STORE_H_
