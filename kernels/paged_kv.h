// The paged KV cache as kernels see it: all offset arithmetic in one place.
//
// One layer is [num_blocks][num_kv_heads][2][block_size][head_dim]: for a block and a head first
// all K rows, then all V rows, contiguous, so that attention streams one head of a block. Position
// p of a sequence lives in slot p % block_size of block table[p / block_size]. Leaf header; plain
// values, thread-safe. Its functions are inlined by force, since files compiled for one CPU level
// call them and a copy of theirs must not serve the rest of the program.
#ifndef MILLRACE_KERNELS_PAGED_KV_H_
#define MILLRACE_KERNELS_PAGED_KV_H_

#include <cstddef>
#include <cstdint>

namespace millrace {

enum class KvDType : std::uint8_t { kF16, kF32 };

[[gnu::always_inline]] constexpr std::int64_t KvElementBytes(KvDType dtype) {
  return dtype == KvDType::kF16 ? 2 : 4;
}

// Attention is computed in partitions of this many positions, at absolute multiples of it; a
// constant of the numerics (docs/numerics.md), so block sizes must divide it.
inline constexpr std::int32_t kKvPartition = 256;

struct KvLayout {
  std::int32_t num_layers = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t block_size = 32;  // positions in a block: 16, 32 or 64
  KvDType dtype = KvDType::kF16;

  // Bytes of one block in one layer.
  constexpr std::int64_t layer_block_bytes() const {
    return std::int64_t{2} * num_kv_heads * block_size * head_dim * KvElementBytes(dtype);
  }
  // Bytes of one block in all layers; and of one position in all layers.
  constexpr std::int64_t block_bytes() const { return num_layers * layer_block_bytes(); }
  constexpr std::int64_t bytes_per_token() const { return block_bytes() / block_size; }
};

// The bytes of one layer. `data` is [num_blocks][num_kv_heads][2][block_size][head_dim] of the
// dtype.
struct KvLayerView {
  std::byte* data = nullptr;
  KvLayout layout;

  // First K row of `head` in `block`, [block_size][head_dim]; its V rows follow directly.
  [[gnu::always_inline]] std::byte* keys(std::int32_t block, std::int32_t head) const {
    const std::int64_t rows = std::int64_t{2} * layout.block_size;
    return data + (std::int64_t{block} * layout.num_kv_heads + head) * rows * layout.head_dim *
                      KvElementBytes(layout.dtype);
  }
  [[gnu::always_inline]] std::byte* values(std::int32_t block, std::int32_t head) const {
    return keys(block, head) +
           std::int64_t{layout.block_size} * layout.head_dim * KvElementBytes(layout.dtype);
  }
};

}  // namespace millrace

#endif  // MILLRACE_KERNELS_PAGED_KV_H_
