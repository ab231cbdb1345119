// Blocks of weights to plain integers: the portable reading of quant_blocks.h, shared by
// dequantisation and the scalar kernels. Static functions: every including file has its own copy,
// compiled with its own flags. Thread-safe (pure).
#ifndef MILLRACE_KERNELS_UNPACK_BLOCKS_H_
#define MILLRACE_KERNELS_UNPACK_BLOCKS_H_

#include <cstdint>

#include "kernels/quant_blocks.h"

namespace millrace {

// Scale and minimum of sub-block s in 0..7 from the 12 packed bytes of Q4_K and Q5_K.
struct ScaleMin {
  std::int32_t scale;
  std::int32_t min;
};

static inline ScaleMin UnpackScaleMin(const std::uint8_t* packed, int s) {
  if (s < 4) return {packed[s] & 0x3F, packed[s + 4] & 0x3F};
  return {(packed[s + 4] & 0x0F) | ((packed[s - 4] >> 6) << 4),
          (packed[s + 4] >> 4) | ((packed[s] >> 6) << 4)};
}

// 16 bytes to 32 nibbles: the types of 32 values below 8 bits, and a sub-block of IQ4_XS.
static inline void UnpackNibbles(const std::uint8_t* q, std::uint8_t* out) {
  for (int i = 0; i < 16; ++i) {
    out[i] = q[i] & 0x0F;
    out[16 + i] = q[i] >> 4;
  }
}

// 32 values in 0..15.
static inline void UnpackValues(const BlockQ4_0& block, std::uint8_t* out) {
  UnpackNibbles(block.q, out);
}
static inline void UnpackValues(const BlockQ4_1& block, std::uint8_t* out) {
  UnpackNibbles(block.q, out);
}

static inline void AddFifthBits(const std::uint8_t* high, std::uint8_t* out) {
  for (int i = 0; i < 32; ++i) {
    out[i] = static_cast<std::uint8_t>(out[i] | (((high[i / 8] >> (i % 8)) & 1) << 4));
  }
}

// 32 values in 0..31; the offset of 16 of Q5_0 is left to the caller.
static inline void UnpackValues(const BlockQ5_0& block, std::uint8_t* out) {
  UnpackNibbles(block.q, out);
  AddFifthBits(block.high, out);
}
static inline void UnpackValues(const BlockQ5_1& block, std::uint8_t* out) {
  UnpackNibbles(block.q, out);
  AddFifthBits(block.high, out);
}

// 32 values in -127..113.
static inline void UnpackValues(const BlockIQ4_NL& block, std::int8_t* out) {
  for (int i = 0; i < 16; ++i) {
    out[i] = kNonLinear4[block.q[i] & 0x0F];
    out[16 + i] = kNonLinear4[block.q[i] >> 4];
  }
}

// 64 bytes to 256 pairs of bits: Q2_K and the low bits of Q3_K.
static inline void UnpackPairs(const std::uint8_t* q, std::uint8_t* out) {
  for (int half = 0; half < 2; ++half) {
    for (int j = 0; j < 4; ++j) {
      for (int i = 0; i < 32; ++i) {
        out[128 * half + 32 * j + i] = (q[32 * half + i] >> (2 * j)) & 3;
      }
    }
  }
}

// 256 values in 0..3.
static inline void UnpackValues(const BlockQ2_K& block, std::uint8_t* out) {
  UnpackPairs(block.q, out);
}

// 256 values in 0..7; the offset of 4 is left to the caller.
static inline void UnpackValues(const BlockQ3_K& block, std::uint8_t* out) {
  UnpackPairs(block.q, out);
  for (int group = 0; group < 8; ++group) {
    for (int i = 0; i < 32; ++i) {
      out[32 * group + i] =
          static_cast<std::uint8_t>(out[32 * group + i] | (((block.high[i] >> group) & 1) << 2));
    }
  }
}

// 256 values in -127..113.
static inline void UnpackValues(const BlockIQ4_XS& block, std::int8_t* out) {
  for (int s = 0; s < 8; ++s) {
    for (int i = 0; i < 16; ++i) {
      out[32 * s + i] = kNonLinear4[block.q[16 * s + i] & 0x0F];
      out[32 * s + 16 + i] = kNonLinear4[block.q[16 * s + i] >> 4];
    }
  }
}

// The 16 scales of Q6_K in -128..127.
static inline void UnpackScales(const BlockQ6_K& block, std::int8_t* scales) {
  for (int s = 0; s < 16; ++s) scales[s] = block.scales[s];
}

// The 16 scales of Q3_K in -32..31.
static inline void UnpackScales(const BlockQ3_K& block, std::int8_t* scales) {
  for (int s = 0; s < 16; ++s) {
    const int low = s < 8 ? block.scales[s] & 0x0F : block.scales[s - 8] >> 4;
    const int high = (block.scales[8 + s % 4] >> (2 * (s / 4))) & 3;
    scales[s] = static_cast<std::int8_t>((low | (high << 4)) - 32);
  }
}

// The 8 scales of IQ4_XS in -32..31.
static inline void UnpackScales(const BlockIQ4_XS& block, std::int8_t* scales) {
  for (int s = 0; s < 8; ++s) {
    const int low = (block.scales_low[s / 2] >> (4 * (s % 2))) & 0x0F;
    const int high = (block.scales_high >> (2 * s)) & 3;
    scales[s] = static_cast<std::int8_t>((low | (high << 4)) - 32);
  }
}

// 256 values in 0..15.
static inline void UnpackValues(const BlockQ4_K& block, std::uint8_t* out) {
  for (int group = 0; group < 4; ++group) {
    for (int i = 0; i < 32; ++i) {
      out[64 * group + i] = block.q[32 * group + i] & 0x0F;
      out[64 * group + 32 + i] = block.q[32 * group + i] >> 4;
    }
  }
}

// 256 values in 0..31.
static inline void UnpackValues(const BlockQ5_K& block, std::uint8_t* out) {
  for (int group = 0; group < 4; ++group) {
    for (int i = 0; i < 32; ++i) {
      const int low_bit = (block.high[i] >> (2 * group)) & 1;
      const int high_bit = (block.high[i] >> (2 * group + 1)) & 1;
      out[64 * group + i] =
          static_cast<std::uint8_t>((block.q[32 * group + i] & 0x0F) | (low_bit << 4));
      out[64 * group + 32 + i] =
          static_cast<std::uint8_t>((block.q[32 * group + i] >> 4) | (high_bit << 4));
    }
  }
}

// 256 values in 0..63; the type's offset of 32 is left to the caller.
static inline void UnpackValues(const BlockQ6_K& block, std::uint8_t* out) {
  for (int half = 0; half < 2; ++half) {
    const std::uint8_t* low = block.low + 64 * half;
    const std::uint8_t* high = block.high + 32 * half;
    for (int j = 0; j < 4; ++j) {
      for (int i = 0; i < 32; ++i) {
        const int byte = low[32 * (j % 2) + i];
        const int nibble = j < 2 ? byte & 0x0F : byte >> 4;
        out[128 * half + 32 * j + i] =
            static_cast<std::uint8_t>(nibble | (((high[i] >> (2 * j)) & 3) << 4));
      }
    }
  }
}

}  // namespace millrace

#endif  // MILLRACE_KERNELS_UNPACK_BLOCKS_H_
