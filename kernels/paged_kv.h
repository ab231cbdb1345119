// The paged KV cache as kernels see it: all offset arithmetic in one place.
//
// One layer is [num_blocks][num_kv_heads][2][block_size] rows of head_dim values: for a block and a
// head first all K rows, then all V rows, contiguous, so that attention streams one head of a
// block. Position p of a sequence lives in slot p % block_size of block table[p / block_size]. Leaf
// header; plain values, thread-safe. Its functions are inlined by force, since files compiled for
// one CPU level call them and a copy of theirs must not serve the rest of the program.
#ifndef MILLRACE_KERNELS_PAGED_KV_H_
#define MILLRACE_KERNELS_PAGED_KV_H_

#include <cstddef>
#include <cstdint>

namespace millrace {

enum class KvDType : std::uint8_t {
  kF16,
  kF32,
  kQ8_0,  // BlockQ8_0 of kernels/quant_blocks.h: int8 with a half for 32 values
  kFp8,   // Fp8 of kernels/fp8.h: a byte a value
};

// Head sizes that a type of cache takes are multiples of this.
[[gnu::always_inline]] constexpr std::int32_t KvHeadDimMultiple(KvDType dtype) {
  return dtype == KvDType::kQ8_0 ? 32 : 1;
}

// Bytes of the K or V row of one position and head.
[[gnu::always_inline]] constexpr std::int64_t KvRowBytes(KvDType dtype, std::int32_t head_dim) {
  switch (dtype) {
    case KvDType::kF16:
      return std::int64_t{2} * head_dim;
    case KvDType::kF32:
      return std::int64_t{4} * head_dim;
    case KvDType::kQ8_0:
      return head_dim / 32 * std::int64_t{34};
    case KvDType::kFp8:
      return head_dim;
  }
  return 0;
}

// Attention is computed in partitions of this many positions, at absolute multiples of it; a
// constant of the numerics (docs/numerics.md), so block sizes must divide it.
inline constexpr std::int32_t kKvPartition = 256;

// Partitions that hold `positions` positions.
[[gnu::always_inline]] constexpr std::int64_t NumPartitions(std::int64_t positions) {
  return (positions + kKvPartition - 1) / kKvPartition;
}

struct KvLayout {
  std::int32_t num_layers = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t block_size = 32;  // positions in a block: 16, 32 or 64
  KvDType dtype = KvDType::kF16;

  [[gnu::always_inline]] constexpr std::int64_t row_bytes() const {
    return KvRowBytes(dtype, head_dim);
  }
  // Bytes of one block in one layer.
  constexpr std::int64_t layer_block_bytes() const {
    return std::int64_t{2} * num_kv_heads * block_size * row_bytes();
  }
  // Bytes of one block in all layers; and of one position in all layers.
  constexpr std::int64_t block_bytes() const { return num_layers * layer_block_bytes(); }
  constexpr std::int64_t bytes_per_token() const { return block_bytes() / block_size; }
};

// The bytes of one layer. `data` is [num_blocks][num_kv_heads][2][block_size] rows of the dtype.
struct KvLayerView {
  std::byte* data = nullptr;
  KvLayout layout;

  // First K row of `head` in `block`, [block_size] rows; its V rows follow directly.
  [[gnu::always_inline]] std::byte* keys(std::int32_t block, std::int32_t head) const {
    const std::int64_t rows = std::int64_t{2} * layout.block_size;
    return data + (std::int64_t{block} * layout.num_kv_heads + head) * rows * layout.row_bytes();
  }
  [[gnu::always_inline]] std::byte* values(std::int32_t block, std::int32_t head) const {
    return keys(block, head) + layout.block_size * layout.row_bytes();
  }
};

}  // namespace millrace

#endif  // MILLRACE_KERNELS_PAGED_KV_H_
