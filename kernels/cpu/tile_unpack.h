// Unpacked tiles for kernels/cpu/matmul_tile.h and how stored ones (kernels/tile_layout.h) become
// them: bytes that lie row by row within a register (4 consecutive k of each row) and, a lane a
// row, scales and minimums. Internal to kernels/cpu.
//
// V is a level's policy (matmul_tile.h), a type of an anonymous namespace, so that every template
// here has internal linkage and its level's flags. Thread-safe (pure).
#ifndef MILLRACE_KERNELS_CPU_TILE_UNPACK_H_
#define MILLRACE_KERNELS_CPU_TILE_UNPACK_H_

#include <cstddef>
#include <cstdint>

#include "kernels/quant_blocks.h"
#include "kernels/tile_layout.h"

namespace millrace::cpu {
namespace {

// What the micro-kernels must know of a type of 256 values:
//   kSubBlocks: 16 of 16 values, or 8 of 32;
//   kMinimums: the type has minimums of its own; where not, tile.mins correct the integer sum;
//   kSigned: values of either sign (bytes of the tile as PlaceSigned leaves them);
//   kMaxValue: the largest magnitude of a byte of the tile, where weights may be signed.
template <typename Block>
struct SuperBlockTraits;
template <>
struct SuperBlockTraits<BlockQ2_K> {
  static constexpr int kSubBlocks = 16, kMaxValue = 3;
  static constexpr bool kMinimums = true, kSigned = false;
};
template <>
struct SuperBlockTraits<BlockQ3_K> {
  static constexpr int kSubBlocks = 16, kMaxValue = 7;
  static constexpr bool kMinimums = false, kSigned = false;
};
template <>
struct SuperBlockTraits<BlockQ4_K> {
  static constexpr int kSubBlocks = 8, kMaxValue = 15;
  static constexpr bool kMinimums = true, kSigned = false;
};
template <>
struct SuperBlockTraits<BlockQ5_K> {
  static constexpr int kSubBlocks = 8, kMaxValue = 31;
  static constexpr bool kMinimums = true, kSigned = false;
};
template <>
struct SuperBlockTraits<BlockQ6_K> {
  static constexpr int kSubBlocks = 16, kMaxValue = 63;
  static constexpr bool kMinimums = false, kSigned = false;
};
template <>
struct SuperBlockTraits<BlockIQ4_XS> {
  static constexpr int kSubBlocks = 8, kMaxValue = 127;
  static constexpr bool kMinimums = false, kSigned = true;
};

// And of a type of 32 values; kOffset is what an unsigned byte is above its value.
template <typename Block>
struct BlockTraits;
template <>
struct BlockTraits<BlockQ8_0> {
  static constexpr int kOffset = 0, kMaxValue = 128;
  static constexpr bool kMinimums = false, kSigned = true;
};
template <>
struct BlockTraits<BlockIQ4_NL> {
  static constexpr int kOffset = 0, kMaxValue = 127;
  static constexpr bool kMinimums = false, kSigned = true;
};
template <>
struct BlockTraits<BlockQ4_0> {
  static constexpr int kOffset = 8, kMaxValue = 15;
  static constexpr bool kMinimums = false, kSigned = false;
};
template <>
struct BlockTraits<BlockQ4_1> {
  static constexpr int kOffset = 0, kMaxValue = 15;
  static constexpr bool kMinimums = true, kSigned = false;
};
template <>
struct BlockTraits<BlockQ5_0> {
  static constexpr int kOffset = 16, kMaxValue = 31;
  static constexpr bool kMinimums = false, kSigned = false;
};
template <>
struct BlockTraits<BlockQ5_1> {
  static constexpr int kOffset = 0, kMaxValue = 31;
  static constexpr bool kMinimums = true, kSigned = false;
};

// 256 values of V::kRows rows. q[t] holds values 4t..4t+3 of each row.
template <typename V>
struct SuperBlockTile {
  alignas(64) std::uint8_t q[64][4 * V::kRows];
  // One dword a row: the scale of a sub-block as int32, or twice as int16 (V::kPairedScales).
  alignas(64) std::uint32_t scales[16][V::kRows];
  // One dword a row: int16 factors of the activation sums 2p and 2p + 1. They are the type's own
  // minimums (Traits::kMinimums), or what a byte of q is above its value, times the scale.
  alignas(64) std::uint32_t mins[8][V::kRows];
  alignas(64) float d[V::kRows];
  alignas(64) float dmin[V::kRows];
};

// Up to 8 blocks of 32 values of V::kRows rows.
template <typename V>
struct BlocksTile {
  alignas(64) std::uint8_t q[64][4 * V::kRows];
  alignas(64) float d[8][V::kRows];
  alignas(64) float m[8][V::kRows];
};

template <typename Vector, typename T>
inline void StoreVector(T* at, Vector v) {
  __builtin_memcpy(at, &v, sizeof(v));
}

template <typename Vector, typename T>
inline Vector LoadVector(const T* at) {
  Vector v;
  __builtin_memcpy(&v, at, sizeof(v));
  return v;
}

// One block of every row of a stored tile.
template <typename V>
struct StoredBlock {
  const std::byte* dwords;
  const std::byte* halves;

  typename V::U Dword(int i) const {
    return LoadVector<typename V::U>(dwords + std::ptrdiff_t{4} * V::kRows * i);
  }
  void Quad(int first, typename V::U* out) const {
    for (int i = 0; i < 4; ++i) out[i] = Dword(first + i);
  }
  typename V::F Half() const { return V::LoadHalves(halves); }
};

// Byte `b` of each dword, as a scale of the tile. The signed form shifts arithmetically.
template <typename V>
inline typename V::U PlaceScale(typename V::U bytes, int b) {
  const typename V::U scale = (bytes >> (8 * b)) & 0xFFU;
  return V::kPairedScales ? scale | (scale << 16) : scale;
}

template <typename V>
inline typename V::I SignedByte(typename V::U bytes, int b) {
  return reinterpret_cast<typename V::I>(bytes << (24 - 8 * b)) >> 24;
}

template <typename V>
inline typename V::U PlaceSignedScale(typename V::U bytes, int b) {
  const auto scale = reinterpret_cast<typename V::U>(SignedByte<V>(bytes, b));
  return V::kPairedScales ? (scale & 0xFFFFU) | (scale << 16) : scale;
}

// A level that multiplies unsigned weights gets q + 128 and takes 128 * sum off again.
template <typename V>
inline typename V::U PlaceSigned(typename V::U q) {
  return V::kSignedWeights ? q : q ^ 0x80808080U;
}

// kNonLinear4 of each byte in 0..15, as PlaceSigned leaves it.
template <typename V>
inline typename V::U NonLinear(typename V::U nibbles) {
  return PlaceSigned<V>(V::LookUp(kNonLinear4, nibbles));
}

// d and a second half, of types that begin or end with both.
template <typename V>
inline void UnpackTwoHalves(typename V::U dwords, float* first, float* second) {
  StoreVector(first, V::WidenHalves(dwords & 0xFFFFU));
  StoreVector(second, V::WidenHalves(dwords >> 16));
}

// d, dmin and the 6-bit scales and minimums: the first 16 bytes of Q4_K and Q5_K.
template <typename V>
inline void UnpackHeader(const StoredBlock<V>& stored, SuperBlockTile<V>& tile) {
  using U = typename V::U;
  U header[4];
  stored.Quad(0, header);
  UnpackTwoHalves<V>(header[0], tile.d, tile.dmin);
  const U scales[2] = {header[1] & 0x3F3F3F3FU,
                       (header[3] & 0x0F0F0F0FU) | ((header[1] >> 2) & 0x30303030U)};
  const U mins[2] = {header[2] & 0x3F3F3F3FU,
                     ((header[3] >> 4) & 0x0F0F0F0FU) | ((header[2] >> 2) & 0x30303030U)};
  for (int s = 0; s < 8; ++s) {
    StoreVector(tile.scales[s], PlaceScale<V>(scales[s / 4], s % 4));
    const U min = (mins[s / 4] >> (8 * (s % 4))) & 0xFFU;
    StoreVector(tile.mins[s], min | (min << 16));  // the minimum of 32 values is that of both 16s
  }
}

template <typename V>
inline void UnpackTile(const BlockQ4_K*, const StoredBlock<V>& stored, SuperBlockTile<V>& tile) {
  using U = typename V::U;
  UnpackHeader<V>(stored, tile);
  for (int part = 0; part < 8; ++part) {  // 16 bytes: half of a pair of sub-blocks
    U q[4];
    stored.Quad(4 + 4 * part, q);
    const int at = 16 * (part / 2) + 4 * (part % 2);
    for (int i = 0; i < 4; ++i) {
      StoreVector(tile.q[at + i], q[i] & 0x0F0F0F0FU);
      StoreVector(tile.q[at + 8 + i], (q[i] >> 4) & 0x0F0F0F0FU);
    }
  }
}

template <typename V>
inline void UnpackTile(const BlockQ5_K*, const StoredBlock<V>& stored, SuperBlockTile<V>& tile) {
  using U = typename V::U;
  UnpackHeader<V>(stored, tile);
  U high[8];
  stored.Quad(4, high);
  stored.Quad(8, high + 4);
  for (int part = 0; part < 8; ++part) {
    U q[4];
    stored.Quad(12 + 4 * part, q);
    const int at = 16 * (part / 2) + 4 * (part % 2);
    const int s = part / 2 * 2;
    for (int i = 0; i < 4; ++i) {
      const U bits = high[4 * (part % 2) + i] >> s;
      StoreVector(tile.q[at + i], (q[i] & 0x0F0F0F0FU) | ((bits << 4) & 0x10101010U));
      StoreVector(tile.q[at + 8 + i], ((q[i] >> 4) & 0x0F0F0F0FU) | ((bits << 3) & 0x10101010U));
    }
  }
}

// 16 signed scales, four a dword, and as minimums kOffset times them: what a byte of the tile is
// above its value.
template <typename V, int kOffset>
inline void PlaceSignedScales(const typename V::U* scales, SuperBlockTile<V>& tile) {
  using U = typename V::U;
  for (int s = 0; s < 16; ++s) {
    StoreVector(tile.scales[s], PlaceSignedScale<V>(scales[s / 4], s % 4));
  }
  for (int pair = 0; pair < 8; ++pair) {
    const U bytes = scales[pair / 2];
    const auto even = reinterpret_cast<U>(SignedByte<V>(bytes, pair % 2 * 2) * kOffset);
    const auto odd = reinterpret_cast<U>(SignedByte<V>(bytes, pair % 2 * 2 + 1) * kOffset);
    StoreVector(tile.mins[pair], (even & 0xFFFFU) | (odd << 16));
  }
}

template <typename V>
inline void UnpackTile(const BlockQ6_K*, const StoredBlock<V>& stored, SuperBlockTile<V>& tile) {
  using U = typename V::U;
  for (int part = 0; part < 4; ++part) {  // 16 of the 64 bytes of high pairs; two make a half
    U high[4];
    U low[4];
    U next[4];
    const int half = part / 2;
    stored.Quad(32 + 4 * part, high);
    stored.Quad(16 * half + 4 * (part % 2), low);
    stored.Quad(16 * half + 8 + 4 * (part % 2), next);
    const int at = 32 * half + 4 * (part % 2);
    for (int i = 0; i < 4; ++i) {
      const U pairs = high[i];
      StoreVector(tile.q[at + i], (low[i] & 0x0F0F0F0FU) | ((pairs << 4) & 0x30303030U));
      StoreVector(tile.q[at + 8 + i], (next[i] & 0x0F0F0F0FU) | ((pairs << 2) & 0x30303030U));
      StoreVector(tile.q[at + 16 + i], ((low[i] >> 4) & 0x0F0F0F0FU) | (pairs & 0x30303030U));
      StoreVector(tile.q[at + 24 + i],
                  ((next[i] >> 4) & 0x0F0F0F0FU) | ((pairs >> 2) & 0x30303030U));
    }
  }
  U scales[4];
  stored.Quad(48, scales);
  PlaceSignedScales<V, 32>(scales, tile);
  StoreVector(tile.d, stored.Half());
}

// 64 bytes of pairs of bits, from dword `first` on: Q2_K's values and the low bits of Q3_K's. `add`
// gets a quad and the index of its place.
template <typename V, typename Add>
inline void UnpackPairQuads(const StoredBlock<V>& stored, int first, SuperBlockTile<V>& tile,
                            const Add& add) {
  using U = typename V::U;
  for (int part = 0; part < 4; ++part) {  // 16 bytes; two make a half
    U q[4];
    stored.Quad(first + 4 * part, q);
    for (int j = 0; j < 4; ++j) {
      for (int i = 0; i < 4; ++i) {
        const int at = 32 * (part / 2) + 8 * j + 4 * (part % 2) + i;
        StoreVector(tile.q[at], add((q[i] >> (2 * j)) & 0x03030303U, at));
      }
    }
  }
}

template <typename V>
inline void UnpackTile(const BlockQ2_K*, const StoredBlock<V>& stored, SuperBlockTile<V>& tile) {
  using U = typename V::U;
  UnpackPairQuads<V>(stored, 4, tile, [](U q, int) { return q; });
  U packed[4];
  stored.Quad(0, packed);
  for (int s = 0; s < 16; ++s) {
    StoreVector(tile.scales[s], PlaceScale<V>(packed[s / 4] & 0x0F0F0F0FU, s % 4));
  }
  for (int pair = 0; pair < 8; ++pair) {
    const U mins = (packed[pair / 2] >> (16 * (pair % 2) + 4)) & 0x0F0FU;
    StoreVector(tile.mins[pair], (mins & 0x0FU) | ((mins & 0x0F00U) << 8));
  }
  UnpackTwoHalves<V>(stored.Dword(20), tile.d, tile.dmin);
}

// 6-bit scales of which 32 is to be taken off, as Q6_K's signed ones; four a dword.
template <typename V>
inline typename V::U SubtractScaleOffset(typename V::U bytes) {
  return ((bytes | 0x80808080U) - 0x20202020U) ^ 0x80808080U;
}

template <typename V>
inline void UnpackTile(const BlockQ3_K*, const StoredBlock<V>& stored, SuperBlockTile<V>& tile) {
  using U = typename V::U;
  U high[8];
  stored.Quad(0, high);
  stored.Quad(4, high + 4);
  UnpackPairQuads<V>(stored, 8, tile, [&](U q, int at) {
    return q | (((high[at % 8] >> (at / 8)) & 0x01010101U) << 2);
  });
  const U low[2] = {stored.Dword(24), stored.Dword(25)};
  const U pairs = stored.Dword(26);
  U scales[4];
  for (int group = 0; group < 4; ++group) {
    const U nibbles = (low[group % 2] >> (group / 2 * 4)) & 0x0F0F0F0FU;
    scales[group] = SubtractScaleOffset<V>(nibbles | (((pairs >> (2 * group)) & 0x03030303U) << 4));
  }
  PlaceSignedScales<V, 4>(scales, tile);
  StoreVector(tile.d, stored.Half());
}

template <typename V>
inline void UnpackTile(const BlockIQ4_XS*, const StoredBlock<V>& stored, SuperBlockTile<V>& tile) {
  using U = typename V::U;
  using I = typename V::I;
  const U header[2] = {stored.Dword(0), stored.Dword(1)};  // d and high bits of scales, low ones
  const U high = header[0] >> 16;
  for (int s = 0; s < 8; ++s) {
    const U scale = ((header[1] >> (4 * s)) & 0x0FU) | (((high >> (2 * s)) & 3U) << 4);
    const auto value = reinterpret_cast<I>(scale) - 32;
    const auto bits = reinterpret_cast<U>(value);
    StoreVector(tile.scales[s], V::kPairedScales ? (bits & 0xFFFFU) | (bits << 16) : bits);
    const auto factor = reinterpret_cast<U>(V::kSignedWeights ? value * 0 : value * 128);
    StoreVector(tile.mins[s], (factor & 0xFFFFU) | (factor << 16));  // 32 values are two of 16
    U q[4];
    stored.Quad(2 + 4 * s, q);
    for (int i = 0; i < 4; ++i) {
      StoreVector(tile.q[8 * s + i], NonLinear<V>(q[i] & 0x0F0F0F0FU));
      StoreVector(tile.q[8 * s + 4 + i], NonLinear<V>((q[i] >> 4) & 0x0F0F0F0FU));
    }
  }
  StoreVector(tile.d, V::WidenHalves(header[0] & 0xFFFFU));
}

template <typename V>
inline void UnpackNibbleBlock(const StoredBlock<V>& stored, int first, int block,
                              BlocksTile<V>& tile) {
  typename V::U q[4];
  stored.Quad(first, q);
  for (int i = 0; i < 4; ++i) {
    StoreVector(tile.q[8 * block + i], q[i] & 0x0F0F0F0FU);
    StoreVector(tile.q[8 * block + 4 + i], (q[i] >> 4) & 0x0F0F0F0FU);
  }
}

template <typename V>
inline void UnpackBlock(const BlockQ4_0*, const StoredBlock<V>& stored, int block,
                        BlocksTile<V>& tile) {
  StoreVector(tile.d[block], stored.Half());
  UnpackNibbleBlock<V>(stored, 0, block, tile);
}

template <typename V>
inline void UnpackBlock(const BlockQ4_1*, const StoredBlock<V>& stored, int block,
                        BlocksTile<V>& tile) {
  UnpackTwoHalves<V>(stored.Dword(0), tile.d[block], tile.m[block]);
  UnpackNibbleBlock<V>(stored, 1, block, tile);
}

template <typename V>
inline void UnpackBlock(const BlockQ8_0*, const StoredBlock<V>& stored, int block,
                        BlocksTile<V>& tile) {
  StoreVector(tile.d[block], stored.Half());
  for (int part = 0; part < 2; ++part) {
    typename V::U q[4];
    stored.Quad(4 * part, q);
    for (int i = 0; i < 4; ++i) {
      StoreVector(tile.q[8 * block + 4 * part + i], PlaceSigned<V>(q[i]));
    }
  }
}

template <typename V>
inline void UnpackBlock(const BlockIQ4_NL*, const StoredBlock<V>& stored, int block,
                        BlocksTile<V>& tile) {
  StoreVector(tile.d[block], stored.Half());
  typename V::U q[4];
  stored.Quad(0, q);
  for (int i = 0; i < 4; ++i) {
    StoreVector(tile.q[8 * block + i], NonLinear<V>(q[i] & 0x0F0F0F0FU));
    StoreVector(tile.q[8 * block + 4 + i], NonLinear<V>((q[i] >> 4) & 0x0F0F0F0FU));
  }
}

// Bits 0..3 of each dword, as bit 4 of its bytes 0..3.
template <typename V>
inline typename V::U SpreadToBit4(typename V::U bits) {
  bits &= 0x0FU;
  return ((bits << 4) | (bits << 11) | (bits << 18) | (bits << 25)) & 0x10101010U;
}

// Five bits: the fifth ones in the dword before the nibbles.
template <typename V>
inline void UnpackFiveBitBlock(const StoredBlock<V>& stored, int first, int block,
                               BlocksTile<V>& tile) {
  using U = typename V::U;
  const U high = stored.Dword(first);
  U q[4];
  stored.Quad(first + 1, q);
  for (int i = 0; i < 4; ++i) {
    StoreVector(tile.q[8 * block + i], (q[i] & 0x0F0F0F0FU) | SpreadToBit4<V>(high >> (4 * i)));
    StoreVector(tile.q[8 * block + 4 + i],
                ((q[i] >> 4) & 0x0F0F0F0FU) | SpreadToBit4<V>(high >> (16 + 4 * i)));
  }
}

template <typename V>
inline void UnpackBlock(const BlockQ5_0*, const StoredBlock<V>& stored, int block,
                        BlocksTile<V>& tile) {
  StoreVector(tile.d[block], stored.Half());
  UnpackFiveBitBlock<V>(stored, 0, block, tile);
}

template <typename V>
inline void UnpackBlock(const BlockQ5_1*, const StoredBlock<V>& stored, int block,
                        BlocksTile<V>& tile) {
  UnpackTwoHalves<V>(stored.Dword(0), tile.d[block], tile.m[block]);
  UnpackFiveBitBlock<V>(stored, 1, block, tile);
}

}  // namespace
}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_TILE_UNPACK_H_
