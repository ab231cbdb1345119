// The types of the KV cache on the device, and where its rows lie (kernels/paged_kv.h). A new type
// is a struct here, a line in WithKvType, and its way in (rope_row.h). Device code, and the
// host's choice by type.
#ifndef MILLRACE_KERNELS_CUDA_KV_ROWS_H_
#define MILLRACE_KERNELS_CUDA_KV_ROWS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/quantize.h"
#include "kernels/fp8.h"
#include "kernels/paged_kv.h"
#include "kernels/quant_blocks.h"

namespace millrace::cuda {

struct alignas(8) Float2 {
  float value[2];
};

// Each type widens values i .. i + 3 of a row that lies in shared memory, i a multiple of 4, and
// i, i + 1, i even; exactly, so the values are those that kernels/cpu/attention.h computes with.
struct KvF16 {
  static constexpr KvDType kDType = KvDType::kF16;
  static constexpr int RowBytes(int head_dim) { return 2 * head_dim; }
  static __device__ Float4 Widen(const std::byte* row, int i) {
    struct alignas(8) Halves {
      std::uint16_t value[4];
    };
    const Halves h = *reinterpret_cast<const Halves*>(row + 2 * i);
    return {{HalfToFloat(h.value[0]), HalfToFloat(h.value[1]), HalfToFloat(h.value[2]),
             HalfToFloat(h.value[3])}};
  }
  static __device__ Float2 WidenTwo(const std::byte* row, int i) {
    const std::uint32_t word = *reinterpret_cast<const std::uint32_t*>(row + 2 * i);
    return {{HalfToFloat(static_cast<std::uint16_t>(word & 0xFFFFU)),
             HalfToFloat(static_cast<std::uint16_t>(word >> 16))}};
  }
};

struct KvF32 {
  static constexpr KvDType kDType = KvDType::kF32;
  static constexpr int RowBytes(int head_dim) { return 4 * head_dim; }
  static __device__ Float4 Widen(const std::byte* row, int i) {
    return *reinterpret_cast<const Float4*>(row + 4 * i);
  }
  static __device__ Float2 WidenTwo(const std::byte* row, int i) {
    return *reinterpret_cast<const Float2*>(row + 4 * i);
  }
};

struct KvQ8_0 {
  static constexpr KvDType kDType = KvDType::kQ8_0;
  static constexpr int RowBytes(int head_dim) { return head_dim / 32 * int{sizeof(BlockQ8_0)}; }
  // Blocks of 34 bytes are aligned to 2 only.
  static __device__ Float4 Widen(const std::byte* row, int i) {
    const auto* block =
        reinterpret_cast<const std::uint16_t*>(row + i / 32 * int{sizeof(BlockQ8_0)});
    const float d = HalfToFloat(block[0]);
    const std::uint32_t low = block[1 + i % 32 / 2];
    const std::uint32_t high = block[2 + i % 32 / 2];
    return {{Byte(low) * d, Byte(low >> 8) * d, Byte(high) * d, Byte(high >> 8) * d}};
  }
  static __device__ Float2 WidenTwo(const std::byte* row, int i) {
    const auto* block =
        reinterpret_cast<const std::uint16_t*>(row + i / 32 * int{sizeof(BlockQ8_0)});
    const float d = HalfToFloat(block[0]);
    const std::uint32_t two = block[1 + i % 32 / 2];
    return {{Byte(two) * d, Byte(two >> 8) * d}};
  }

 private:
  static __device__ float Byte(std::uint32_t bits) {
    return static_cast<float>(static_cast<std::int8_t>(bits & 0xFFU));
  }
};

struct KvFp8 {
  static constexpr KvDType kDType = KvDType::kFp8;
  static constexpr int RowBytes(int head_dim) { return head_dim; }
  static __device__ Float4 Widen(const std::byte* row, int i) {
    const std::uint32_t word = *reinterpret_cast<const std::uint32_t*>(row + i);
    Float4 out = {{Number(word << 24), Number(word << 16), Number(word << 8), Number(word)}};
    // Four values are looked at together for NaNs, which hardly ever come: a carry into bit 7.
    if ((((word & 0x7F7F7F7FU) + 0x01010101U) & 0x80808080U) != 0) {
      for (int j = 0; j < 4; ++j) {
        out.value[j] = Fp8ToFloat({static_cast<std::uint8_t>((word >> (8 * j)) & 0xFFU)});
      }
    }
    return out;
  }
  static __device__ Float2 WidenTwo(const std::byte* row, int i) {
    const std::uint32_t word = *reinterpret_cast<const std::uint16_t*>(row + i);
    Float2 out = {{Number(word << 24), Number(word << 16)}};
    if ((((word & 0x7F7FU) + 0x0101U) & 0x8080U) != 0) {
      for (int j = 0; j < 2; ++j) {
        out.value[j] = Fp8ToFloat({static_cast<std::uint8_t>((word >> (8 * j)) & 0xFFU)});
      }
    }
    return out;
  }

 private:
  // The value of the highest byte, which is no NaN: as a float's bits it is 2^-120 of itself,
  // subnormal or not (kernels are compiled without flushing of subnormals).
  static __device__ float Number(std::uint32_t bits) {
    const std::uint32_t small = (bits & 0x80000000U) | ((bits >> 4) & 0x07F00000U);
    return BitsFloat(small) * 0x1p120F;
  }
};

// First key row, or value row, of a head in a block; [block_size] rows.
__device__ inline std::byte* KvRows(const KvLayerView& kv, std::int64_t block, int head,
                                    bool values) {
  const KvLayout& layout = kv.layout;
  const std::int64_t rows = (block * layout.num_kv_heads + head) * 2 + (values ? 1 : 0);
  return kv.data + rows * layout.block_size * layout.row_bytes();
}

// Calls `f` with the type's struct; every type of KvDType has its line.
template <typename F>
cudaError_t WithKvType(KvDType dtype, const F& f) {
  switch (dtype) {
    case KvDType::kF16:
      return f(KvF16{});
    case KvDType::kF32:
      return f(KvF32{});
    case KvDType::kQ8_0:
      return f(KvQ8_0{});
    case KvDType::kFp8:
      return f(KvFp8{});
  }
  return cudaErrorInvalidValue;
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_KV_ROWS_H_
