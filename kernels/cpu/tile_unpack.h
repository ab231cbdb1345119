// How stored tiles (kernels/tile_layout.h) are unpacked for kernels/cpu/matmul_tile.h: into bytes
// that lie row by row within a register (4 consecutive k of each row) and, a lane a row, scales and
// minimums. Values come in quads, four registers for 16 consecutive k, which a sink takes: it
// stores them for many columns (StoreQuads) or multiplies them at once. Quads of a sub-block follow
// each other, and the scales are there before them. Internal to kernels/cpu.
//
// V is a level's policy (matmul_tile.h), a type of an anonymous namespace, so that every template
// here has internal linkage and its level's flags. Thread-safe (pure).
#ifndef MILLRACE_KERNELS_CPU_TILE_UNPACK_H_
#define MILLRACE_KERNELS_CPU_TILE_UNPACK_H_

#include <cstddef>
#include <cstdint>
#include <utility>

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

// What 256 values of V::kRows rows are scaled with.
template <typename V>
struct SuperBlockScales {
  // One dword a row: the scale of a sub-block as int32, or twice as int16 (V::kPairedScales).
  alignas(64) std::uint32_t scales[16][V::kRows];
  // One dword a row: int16 factors of the activation's sums over sub-blocks 2p and 2p + 1. They are
  // the type's own minimums (Traits::kMinimums), or what a byte of q is above its value, times the
  // scale.
  alignas(64) std::uint32_t mins[8][V::kRows];
  alignas(64) float d[V::kRows];
  alignas(64) float dmin[V::kRows];
};

// 256 values of V::kRows rows. q[t] holds values 4t..4t+3 of each row.
template <typename V>
struct SuperBlockTile : SuperBlockScales<V> {
  alignas(64) std::uint8_t q[64][4 * V::kRows];
};

// What 32 values of V::kRows rows are scaled with; m where the type has minimums.
template <typename V>
struct BlockScales {
  typename V::F d;
  typename V::F m;
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

// The activation's sums over sub-blocks 2 * pair and 2 * pair + 1: two int16.
template <int kSubBlocks>
inline const std::int16_t* Sums(const ActivationQ8x256& x, int pair) {
  return (kSubBlocks == 16 ? x.sums : x.pair_sums) + 2 * pair;
}

// f.operator()<0>(), ..., f.operator()<kCount - 1>(); f should be inlined by force, or a sink's
// sums go through memory.
template <int kCount, typename F>
[[gnu::always_inline]] inline void Unrolled(F&& f) {
  [&]<int... kI>(std::integer_sequence<int, kI...>) { (f.template operator()<kI>(), ...); }
  (std::make_integer_sequence<int, kCount>());
}

// A sink that keeps quads for later, at q[0], q[1], ...
template <typename V>
struct StoreQuads {
  std::uint8_t (*q)[4 * V::kRows];

  template <int kQuad>
  [[gnu::always_inline]] void Put(const typename V::U (&quad)[4]) const {
    for (int i = 0; i < 4; ++i) StoreVector(q[4 * kQuad + i], quad[i]);
  }
};

// Where a dword of a block lies in its tile.
template <DType kDType, int kDword>
inline constexpr int kPlace = DwordPlace(kDType, kDword);

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
inline void UnpackHeader(const StoredBlock<V>& stored, SuperBlockScales<V>& tile) {
  using U = typename V::U;
  U header[4];
  stored.Quad(0, header);
  UnpackTwoHalves<V>(header[0], tile.d, tile.dmin);
  const U scales[2] = {header[1] & 0x3F3F3F3FU,
                       (header[3] & 0x0F0F0F0FU) | ((header[1] >> 2) & 0x30303030U)};
  const U mins[2] = {header[2] & 0x3F3F3F3FU,
                     ((header[3] >> 4) & 0x0F0F0F0FU) | ((header[2] >> 2) & 0x30303030U)};
  for (int s = 0; s < 8; ++s) StoreVector(tile.scales[s], PlaceScale<V>(scales[s / 4], s % 4));
  for (int pair = 0; pair < 4; ++pair) {
    const U both = mins[pair / 2] >> (16 * (pair % 2));
    StoreVector(tile.mins[pair], (both & 0xFFU) | ((both & 0xFF00U) << 8));
  }
}

// A pair of sub-blocks of 32 values lies in 32 bytes: the low nibbles are the first one.
template <typename V, typename Sink>
[[gnu::always_inline]] inline void UnpackTile(const BlockQ4_K*, const StoredBlock<V>& stored,
                                              SuperBlockScales<V>& tile, Sink& sink) {
  using U = typename V::U;
  UnpackHeader<V>(stored, tile);
  Unrolled<4>([&]<int kPair>() __attribute__((always_inline)) {
    U q[2][4];
    Unrolled<2>([&]<int kHalf>() __attribute__((always_inline)) {
      stored.Quad(4 + 8 * kPair + 4 * kHalf, q[kHalf]);
      U low[4];
      for (int i = 0; i < 4; ++i) low[i] = q[kHalf][i] & 0x0F0F0F0FU;
      sink.template Put<4 * kPair + kHalf>(low);
    });
    Unrolled<2>([&]<int kHalf>() __attribute__((always_inline)) {
      U high[4];
      for (int i = 0; i < 4; ++i) high[i] = (q[kHalf][i] >> 4) & 0x0F0F0F0FU;
      sink.template Put<4 * kPair + 2 + kHalf>(high);
    });
  });
}

template <typename V, typename Sink>
[[gnu::always_inline]] inline void UnpackTile(const BlockQ5_K*, const StoredBlock<V>& stored,
                                              SuperBlockScales<V>& tile, Sink& sink) {
  using U = typename V::U;
  UnpackHeader<V>(stored, tile);
  Unrolled<4>([&]<int kPair>() __attribute__((always_inline)) {
    U q[2][4];
    U fifth[2][4];
    Unrolled<2>([&]<int kHalf>() __attribute__((always_inline)) {
      stored.Quad(4 + 4 * kHalf, fifth[kHalf]);
      stored.Quad(12 + 8 * kPair + 4 * kHalf, q[kHalf]);
      U low[4];
      for (int i = 0; i < 4; ++i) {
        fifth[kHalf][i] >>= 2 * kPair;
        low[i] = (q[kHalf][i] & 0x0F0F0F0FU) | ((fifth[kHalf][i] << 4) & 0x10101010U);
      }
      sink.template Put<4 * kPair + kHalf>(low);
    });
    Unrolled<2>([&]<int kHalf>() __attribute__((always_inline)) {
      U high[4];
      for (int i = 0; i < 4; ++i) {
        high[i] = ((q[kHalf][i] >> 4) & 0x0F0F0F0FU) | ((fifth[kHalf][i] << 3) & 0x10101010U);
      }
      sink.template Put<4 * kPair + 2 + kHalf>(high);
    });
  });
}

// 16 signed scales, four a dword, and as minimums kOffset times them: what a byte of the tile is
// above its value.
template <typename V, int kOffset>
inline void PlaceSignedScales(const typename V::U* scales, SuperBlockScales<V>& tile) {
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

template <typename V, typename Sink>
[[gnu::always_inline]] inline void UnpackTile(const BlockQ6_K*, const StoredBlock<V>& stored,
                                              SuperBlockScales<V>& tile, Sink& sink) {
  using U = typename V::U;
  U scales[4];
  stored.Quad(kPlace<DType::kQ6_K, 48>, scales);
  PlaceSignedScales<V, 32>(scales, tile);
  StoreVector(tile.d, stored.Half());
  // A part is 16 of the 64 bytes of high pairs; two make a half.
  Unrolled<4>([&]<int kPart>() __attribute__((always_inline)) {
    constexpr int kHalf = kPart / 2;
    constexpr int kFirst = 8 * kHalf + kPart % 2;
    U high[4];
    U low[4];
    U next[4];
    U quad[4];
    stored.Quad(kPlace<DType::kQ6_K, 32 + 4 * kPart>, high);
    stored.Quad(kPlace<DType::kQ6_K, 16 * kHalf + 4 * (kPart % 2)>, low);
    stored.Quad(kPlace<DType::kQ6_K, 16 * kHalf + 8 + 4 * (kPart % 2)>, next);
    for (int i = 0; i < 4; ++i) {
      quad[i] = (low[i] & 0x0F0F0F0FU) | ((high[i] << 4) & 0x30303030U);
    }
    sink.template Put<kFirst>(quad);
    for (int i = 0; i < 4; ++i) {
      quad[i] = (next[i] & 0x0F0F0F0FU) | ((high[i] << 2) & 0x30303030U);
    }
    sink.template Put<kFirst + 2>(quad);
    for (int i = 0; i < 4; ++i) {
      quad[i] = ((low[i] >> 4) & 0x0F0F0F0FU) | (high[i] & 0x30303030U);
    }
    sink.template Put<kFirst + 4>(quad);
    for (int i = 0; i < 4; ++i) {
      quad[i] = ((next[i] >> 4) & 0x0F0F0F0FU) | ((high[i] >> 2) & 0x30303030U);
    }
    sink.template Put<kFirst + 6>(quad);
  });
}

// 64 bytes of pairs of bits, from dword `first` on: Q2_K's values and the low bits of Q3_K's. `add`
// gets a register and the index of its place.
template <typename V, typename Add, typename Sink>
[[gnu::always_inline]] inline void UnpackPairQuads(const StoredBlock<V>& stored, int first,
                                                   const Add& add, Sink& sink) {
  using U = typename V::U;
  Unrolled<4>([&]<int kPart>() __attribute__((always_inline)) {  // 16 bytes; two make a half
    U q[4];
    stored.Quad(first + 4 * kPart, q);
    Unrolled<4>([&]<int kPair>() __attribute__((always_inline)) {
      constexpr int kQuad = 8 * (kPart / 2) + 2 * kPair + kPart % 2;
      U quad[4];
      for (int i = 0; i < 4; ++i) {
        quad[i] = add((q[i] >> (2 * kPair)) & 0x03030303U, 4 * kQuad + i);
      }
      sink.template Put<kQuad>(quad);
    });
  });
}

template <typename V, typename Sink>
[[gnu::always_inline]] inline void UnpackTile(const BlockQ2_K*, const StoredBlock<V>& stored,
                                              SuperBlockScales<V>& tile, Sink& sink) {
  using U = typename V::U;
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
  UnpackPairQuads<V>(
      stored, 4, [](U q, int) { return q; }, sink);
}

// 6-bit scales of which 32 is to be taken off, as Q6_K's signed ones; four a dword.
template <typename V>
inline typename V::U SubtractScaleOffset(typename V::U bytes) {
  return ((bytes | 0x80808080U) - 0x20202020U) ^ 0x80808080U;
}

template <typename V, typename Sink>
[[gnu::always_inline]] inline void UnpackTile(const BlockQ3_K*, const StoredBlock<V>& stored,
                                              SuperBlockScales<V>& tile, Sink& sink) {
  using U = typename V::U;
  const U low[2] = {stored.Dword(kPlace<DType::kQ3_K, 24>), stored.Dword(kPlace<DType::kQ3_K, 25>)};
  const U pairs = stored.Dword(kPlace<DType::kQ3_K, 26>);
  U scales[4];
  for (int group = 0; group < 4; ++group) {
    const U nibbles = (low[group % 2] >> (group / 2 * 4)) & 0x0F0F0F0FU;
    scales[group] = SubtractScaleOffset<V>(nibbles | (((pairs >> (2 * group)) & 0x03030303U) << 4));
  }
  PlaceSignedScales<V, 4>(scales, tile);
  StoreVector(tile.d, stored.Half());
  U high[8];
  stored.Quad(kPlace<DType::kQ3_K, 0>, high);
  stored.Quad(kPlace<DType::kQ3_K, 4>, high + 4);
  UnpackPairQuads<V>(
      stored, kPlace<DType::kQ3_K, 8>,
      [&](U q, int at) { return q | (((high[at % 8] >> (at / 8)) & 0x01010101U) << 2); }, sink);
}

template <typename V, typename Sink>
[[gnu::always_inline]] inline void UnpackTile(const BlockIQ4_XS*, const StoredBlock<V>& stored,
                                              SuperBlockScales<V>& tile, Sink& sink) {
  using U = typename V::U;
  using I = typename V::I;
  const U header[2] = {stored.Dword(0), stored.Dword(1)};  // d and high bits of scales, low ones
  const U high = header[0] >> 16;
  U factors[8];
  for (int s = 0; s < 8; ++s) {
    const U scale = ((header[1] >> (4 * s)) & 0x0FU) | (((high >> (2 * s)) & 3U) << 4);
    const auto value = reinterpret_cast<I>(scale) - 32;
    const auto bits = reinterpret_cast<U>(value);
    StoreVector(tile.scales[s], V::kPairedScales ? (bits & 0xFFFFU) | (bits << 16) : bits);
    factors[s] = reinterpret_cast<U>(V::kSignedWeights ? value * 0 : value * 128);
  }
  for (int pair = 0; pair < 4; ++pair) {
    StoreVector(tile.mins[pair], (factors[2 * pair] & 0xFFFFU) | (factors[2 * pair + 1] << 16));
  }
  StoreVector(tile.d, V::WidenHalves(header[0] & 0xFFFFU));
  Unrolled<8>([&]<int kSubBlock>() __attribute__((always_inline)) {
    U q[4];
    U quad[4];
    stored.Quad(2 + 4 * kSubBlock, q);
    for (int i = 0; i < 4; ++i) quad[i] = NonLinear<V>(q[i] & 0x0F0F0F0FU);
    sink.template Put<2 * kSubBlock>(quad);
    for (int i = 0; i < 4; ++i) quad[i] = NonLinear<V>((q[i] >> 4) & 0x0F0F0F0FU);
    sink.template Put<2 * kSubBlock + 1>(quad);
  });
}

// 16 bytes: the low nibbles are the first half of the block.
template <typename V, typename Sink>
[[gnu::always_inline]] inline void UnpackNibbles(const StoredBlock<V>& stored, int first,
                                                 Sink& sink) {
  typename V::U q[4];
  typename V::U quad[4];
  stored.Quad(first, q);
  for (int i = 0; i < 4; ++i) quad[i] = q[i] & 0x0F0F0F0FU;
  sink.template Put<0>(quad);
  for (int i = 0; i < 4; ++i) quad[i] = (q[i] >> 4) & 0x0F0F0F0FU;
  sink.template Put<1>(quad);
}

// d of a type without minimums; m means nothing.
template <typename V>
inline BlockScales<V> OneHalf(const StoredBlock<V>& stored) {
  const typename V::F d = stored.Half();
  return {d, d};
}

// d and m of a type that begins with both.
template <typename V>
inline BlockScales<V> TwoHalves(const StoredBlock<V>& stored) {
  const typename V::U both = stored.Dword(0);
  return {V::WidenHalves(both & 0xFFFFU), V::WidenHalves(both >> 16)};
}

// For types of 32 values: the scales of a block, after its two quads.
template <typename V, typename Sink>
[[gnu::always_inline]] inline BlockScales<V> UnpackBlock(const BlockQ4_0*,
                                                         const StoredBlock<V>& stored, Sink& sink) {
  UnpackNibbles<V>(stored, 0, sink);
  return OneHalf<V>(stored);
}

template <typename V, typename Sink>
[[gnu::always_inline]] inline BlockScales<V> UnpackBlock(const BlockQ4_1*,
                                                         const StoredBlock<V>& stored, Sink& sink) {
  UnpackNibbles<V>(stored, 1, sink);
  return TwoHalves<V>(stored);
}

template <typename V, typename Sink>
[[gnu::always_inline]] inline BlockScales<V> UnpackBlock(const BlockQ8_0*,
                                                         const StoredBlock<V>& stored, Sink& sink) {
  Unrolled<2>([&]<int kQuad>() __attribute__((always_inline)) {
    typename V::U q[4];
    stored.Quad(4 * kQuad, q);
    for (auto& register_of : q) register_of = PlaceSigned<V>(register_of);
    sink.template Put<kQuad>(q);
  });
  return OneHalf<V>(stored);
}

template <typename V, typename Sink>
[[gnu::always_inline]] inline BlockScales<V> UnpackBlock(const BlockIQ4_NL*,
                                                         const StoredBlock<V>& stored, Sink& sink) {
  typename V::U q[4];
  typename V::U quad[4];
  stored.Quad(0, q);
  for (int i = 0; i < 4; ++i) quad[i] = NonLinear<V>(q[i] & 0x0F0F0F0FU);
  sink.template Put<0>(quad);
  for (int i = 0; i < 4; ++i) quad[i] = NonLinear<V>((q[i] >> 4) & 0x0F0F0F0FU);
  sink.template Put<1>(quad);
  return OneHalf<V>(stored);
}

// Bits 0..3 of each dword, as bit 4 of its bytes 0..3.
template <typename V>
inline typename V::U SpreadToBit4(typename V::U bits) {
  bits &= 0x0FU;
  return ((bits << 4) | (bits << 11) | (bits << 18) | (bits << 25)) & 0x10101010U;
}

// Five bits: the fifth ones in the dword before the nibbles.
template <typename V, typename Sink>
[[gnu::always_inline]] inline void UnpackFiveBits(const StoredBlock<V>& stored, int first,
                                                  Sink& sink) {
  using U = typename V::U;
  const U high = stored.Dword(first);
  U q[4];
  U quad[4];
  stored.Quad(first + 1, q);
  for (int i = 0; i < 4; ++i) quad[i] = (q[i] & 0x0F0F0F0FU) | SpreadToBit4<V>(high >> (4 * i));
  sink.template Put<0>(quad);
  for (int i = 0; i < 4; ++i) {
    quad[i] = ((q[i] >> 4) & 0x0F0F0F0FU) | SpreadToBit4<V>(high >> (16 + 4 * i));
  }
  sink.template Put<1>(quad);
}

template <typename V, typename Sink>
[[gnu::always_inline]] inline BlockScales<V> UnpackBlock(const BlockQ5_0*,
                                                         const StoredBlock<V>& stored, Sink& sink) {
  UnpackFiveBits<V>(stored, 0, sink);
  return OneHalf<V>(stored);
}

template <typename V, typename Sink>
[[gnu::always_inline]] inline BlockScales<V> UnpackBlock(const BlockQ5_1*,
                                                         const StoredBlock<V>& stored, Sink& sink) {
  UnpackFiveBits<V>(stored, 1, sink);
  return TwoHalves<V>(stored);
}

}  // namespace
}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_TILE_UNPACK_H_
