// The primitives of kernels/cuda/device.h, which describes them, on the emulated GPU. Test code.
#ifndef MILLRACE_TESTS_CUDA_EMULATION_MILLRACE_EMULATED_DEVICE_H_
#define MILLRACE_TESTS_CUDA_EMULATION_MILLRACE_EMULATED_DEVICE_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/dequantize.h"
#include "tests/cuda/emulation/emulator.h"

namespace millrace::cuda {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kWholeWarp = 0xFFFFFFFFU;

inline void SyncBlock() { emulation::BlockBarrier(false); }
inline bool SyncBlockOr(bool predicate) { return emulation::BlockBarrier(predicate); }
inline void SyncWarp() { emulation::ExchangeInWarp(emulation::Exchange::kSync, nullptr, 0); }

template <typename T>
inline T Shuffle(T value, int lane) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  const emulation::Slots& slots =
      emulation::ExchangeInWarp(emulation::Exchange::kShuffle, &value, sizeof(T));
  T out;
  std::memcpy(&out, slots[static_cast<std::size_t>(lane) % kWarpSize].data(), sizeof(T));
  return out;
}
template <typename T>
inline T ShuffleXor(T value, int mask) {
  return Shuffle(value, emulation::Self().lane ^ mask);
}
template <typename T>
inline T ShuffleDown(T value, int delta) {
  const int lane = emulation::Self().lane;
  return Shuffle(value, lane + delta < kWarpSize ? lane + delta : lane);
}
inline unsigned Ballot(bool predicate) {
  const auto byte = static_cast<std::uint8_t>(predicate);
  const emulation::Slots& slots =
      emulation::ExchangeInWarp(emulation::Exchange::kBallot, &byte, sizeof(byte));
  unsigned mask = 0;
  for (unsigned i = 0; i < kWarpSize; ++i) {
    mask |= (slots[i][0] != std::byte{0} ? 1U : 0U) << i;
  }
  return mask;
}

inline int ByteOf(std::uint32_t word, int i) {
  return static_cast<std::int8_t>((word >> (8 * i)) & 0xFFU);
}
inline int Dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i) {
    c += ByteOf(static_cast<std::uint32_t>(a), i) * ByteOf(static_cast<std::uint32_t>(b), i);
  }
  return c;
}

// A and B as all lanes hold them: kSteps quarters of 16 values of k each.
template <int kSteps>
inline void EmulateMma(int (&d)[4], const std::uint32_t* a, const std::uint32_t* b) {
  struct Fragments {
    std::uint32_t a[2 * kSteps];
    std::uint32_t b[kSteps];
  } own;
  std::memcpy(own.a, a, sizeof(own.a));
  std::memcpy(own.b, b, sizeof(own.b));
  const emulation::Slots& slots =
      emulation::ExchangeInWarp(emulation::Exchange::kMma, &own, sizeof(own));
  const int lane = emulation::Self().lane;
  const auto of_lane = [&](int from) {
    Fragments fragments;
    std::memcpy(&fragments, slots[static_cast<std::size_t>(from)].data(), sizeof(fragments));
    return fragments;
  };
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + (i >= 2 ? 8 : 0);
    const int column = 2 * (lane % 4) + i % 2;
    for (int word = 0; word < 4 * kSteps; ++word) {  // four values of k each
      const int step = word / 4;
      const Fragments left = of_lane(4 * (row % 8) + word % 4);
      const Fragments right = of_lane(4 * column + word % 4);
      d[i] =
          Dp4a(static_cast<int>(left.a[2 * step + row / 8]), static_cast<int>(right.b[step]), d[i]);
    }
  }
}
inline void MmaS8K32(int (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  EmulateMma<2>(d, a, b);
}
inline void MmaS8K16(int (&d)[4], const std::uint32_t (&a)[2], const std::uint32_t (&b)[1]) {
  EmulateMma<1>(d, a, b);
}

struct alignas(16) Bytes16 {
  std::uint32_t word[4];
};

inline void RequireAligned16(const void* address) {
  if (reinterpret_cast<std::uintptr_t>(address) % 16 != 0) __builtin_trap();
}
inline Bytes16 LoadOnce16(const void* address) {
  RequireAligned16(address);
  Bytes16 r;
  std::memcpy(&r, address, sizeof(r));
  return r;
}

template <typename T>
inline T* BlockShared() {
  return reinterpret_cast<T*>(emulation::Self().shared);
}

// Done as late as allowed, so that a missing wait shows; or at once, so that it shows where
// somebody still reads what the copy writes, or has yet to write what it reads.
inline void CopyAsync16(void* shared, const void* global) {
  RequireAligned16(shared);
  RequireAligned16(global);
  emulation::Thread& self = emulation::Self();
  if (self.copies_at_once) {
    std::memcpy(shared, global, 16);
  } else {
    self.copies.push_back({shared, global, self.groups});
  }
}
inline void CommitCopies() { ++emulation::Self().groups; }
template <int kNewest>
inline void WaitCopies() {
  emulation::Thread& self = emulation::Self();
  std::size_t done = 0;
  while (done < self.copies.size() && self.copies[done].group < self.groups - kNewest) {
    std::memcpy(self.copies[done].to, self.copies[done].from, 16);
    ++done;
  }
  self.copies.erase(self.copies.begin(), self.copies.begin() + static_cast<std::ptrdiff_t>(done));
}

inline int AtomicAdd(int* address, int value) {
  const int before = *address;
  *address = before + value;
  emulation::AfterAtomic();
  return before;
}
inline void FenceDevice() {}

inline void AwaitPrevious() { emulation::AwaitPreviousGrid(); }
inline void LetNextBegin() {}

inline float Fma(float a, float b, float c) { return std::fma(a, b, c); }
inline std::uint32_t FloatBits(float value) { return std::bit_cast<std::uint32_t>(value); }
inline float BitsFloat(std::uint32_t bits) { return std::bit_cast<float>(bits); }
inline float HalfToFloat(std::uint16_t half) { return ::millrace::HalfToFloat(half); }
inline std::uint16_t FloatToHalf(float value) { return ::millrace::FloatToHalf(value); }

}  // namespace millrace::cuda

#endif  // MILLRACE_TESTS_CUDA_EMULATION_MILLRACE_EMULATED_DEVICE_H_
