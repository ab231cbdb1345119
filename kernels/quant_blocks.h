// The layouts of quantised blocks: of weights as GGUF files store them (little-endian), and of
// activations as our kernels make them. Value x of a block is given beside each type.
// Leaf header: plain structs, no code but bit fiddling that every level shares.
#ifndef MILLRACE_KERNELS_QUANT_BLOCKS_H_
#define MILLRACE_KERNELS_QUANT_BLOCKS_H_

#include <cstdint>

namespace millrace {

// An IEEE binary16 or a bfloat16 by its bits.
using HalfBits = std::uint16_t;

#pragma pack(push, 1)

// 32 values, x[i] = d * q[i].
struct BlockQ8_0 {
  HalfBits d;
  std::int8_t q[32];
};

// 32 values, x[i] = d * (nibble - 8); value i in 0..15 is the low nibble of q[i], 16 + i the high
// one.
struct BlockQ4_0 {
  HalfBits d;
  std::uint8_t q[16];
};

// 32 values, x[i] = d * nibble + m; nibbles as in Q4_0.
struct BlockQ4_1 {
  HalfBits d;
  HalfBits m;
  std::uint8_t q[16];
};

// As Q4_0 with a fifth bit: x[i] = d * (q - 16); bit i of the little-endian `high` is bit 4 of
// value i.
struct BlockQ5_0 {
  HalfBits d;
  std::uint8_t high[4];
  std::uint8_t q[16];
};

// As Q5_0 with a minimum: x[i] = d * q + m.
struct BlockQ5_1 {
  HalfBits d;
  HalfBits m;
  std::uint8_t high[4];
  std::uint8_t q[16];
};

// 32 values, x[i] = d * kNonLinear4[nibble]; nibbles as in Q4_0.
struct BlockIQ4_NL {
  HalfBits d;
  std::uint8_t q[16];
};

// The values that the nibbles of IQ4_NL and IQ4_XS stand for.
inline constexpr std::int8_t kNonLinear4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                1,    13,   25,  38,  53,  69,  89,  113};

// 256 values in 16 sub-blocks of 16: x = d * scale[s] * q - dmin * min[s], q of 2 bits. The scale
// is the low nibble of scales[s], the minimum its high nibble. Half h, value 32j + i of it (j in
// 0..3): bits 2j..2j+1 of q[32h + i].
struct BlockQ2_K {
  std::uint8_t scales[16];
  std::uint8_t q[64];
  HalfBits d;
  HalfBits dmin;
};

// 256 values in 16 sub-blocks of 16: x = d * (scale[s] - 32) * (q - 4), q of 3 bits: the low two
// as in Q2_K, the third of value 32g + i is bit g of high[i]. Scales are 6 bits each: the low four
// the nibbles of scales[s % 8] (the high one for s >= 8), the high two bits 2(s/4)..2(s/4)+1 of
// scales[8 + s % 4].
struct BlockQ3_K {
  std::uint8_t high[32];
  std::uint8_t q[64];
  std::uint8_t scales[12];
  HalfBits d;
};

// 256 values in 8 sub-blocks of 32: x = d * scale[s] * nibble - dmin * min[s]. Sub-blocks 2j and
// 2j + 1 are the low and the high nibbles of q[32j .. 32j+31]. Scales and mins are 6 bits each,
// packed in 12 bytes: for s < 4 in the low 6 bits of scales[s] and scales[s + 4]; for s >= 4 the
// low 4 bits are the nibbles of scales[s + 4], the high 2 bits are bits 6..7 of scales[s - 4] and
// scales[s].
struct BlockQ4_K {
  HalfBits d;
  HalfBits dmin;
  std::uint8_t scales[12];
  std::uint8_t q[128];
};

// As Q4_K with a fifth bit: bit s of high[i] belongs to value i of sub-block s.
struct BlockQ5_K {
  HalfBits d;
  HalfBits dmin;
  std::uint8_t scales[12];
  std::uint8_t high[32];
  std::uint8_t q[128];
};

// 256 values in 16 sub-blocks of 16: x = d * scale[s] * (q - 32), q of 6 bits: low nibbles in
// `low`, high pairs in `high`. Half h (128 values), value 32j + i of it (j in 0..3): the nibble is
// low[64h + 32(j%2) + i] (its high nibble for j >= 2), the pair is bits 2j..2j+1 of high[32h + i].
struct BlockQ6_K {
  std::uint8_t low[128];
  std::uint8_t high[64];
  std::int8_t scales[16];
  HalfBits d;
};

// 256 values in 8 sub-blocks of 32: x = d * (scale[s] - 32) * kNonLinear4[nibble]. Sub-block s is
// q[16s .. 16s+15], its low nibbles first. Scales are 6 bits each: the low four nibble s of
// scales_low, the high two bits 2s..2s+1 of scales_high.
struct BlockIQ4_XS {
  HalfBits d;
  std::uint16_t scales_high;
  std::uint8_t scales_low[4];
  std::uint8_t q[128];
};

#pragma pack(pop)

static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20);
static_assert(sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24 && sizeof(BlockIQ4_NL) == 18);
static_assert(sizeof(BlockQ2_K) == 84 && sizeof(BlockQ3_K) == 110 && sizeof(BlockIQ4_XS) == 136);
static_assert(sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);

// Activations, 32 values: x[i] ~ scale * q[i]; sum is the sum of q.
struct ActivationQ8x32 {
  float scale;
  std::int32_t sum;
  std::int8_t q[32];
};

// Activations, 256 values: x[i] ~ scale * q[i]; sums[s] is the sum of q[16s .. 16s+15],
// pair_sums[p] that of q[32p .. 32p+31].
struct ActivationQ8x256 {
  float scale;
  std::int16_t sums[16];
  std::int16_t pair_sums[8];
  std::int8_t q[256];
};

static_assert(sizeof(ActivationQ8x32) == 40 && sizeof(ActivationQ8x256) == 308);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_QUANT_BLOCKS_H_
