// Philox 4x32 with ten rounds, the counter-based generator of Salmon, Moraes, Dror and Shaw,
// "Parallel random numbers: as easy as 1, 2, 3" (2011): 128 random bits as a pure function of a
// counter and a key. Leaf header; thread-safe.
#ifndef MILLRACE_KERNELS_PHILOX_H_
#define MILLRACE_KERNELS_PHILOX_H_

#include <array>
#include <cstdint>

namespace millrace {

constexpr std::array<std::uint32_t, 4> Philox4x32(std::array<std::uint32_t, 4> counter,
                                                  std::array<std::uint32_t, 2> key) {
  constexpr std::uint32_t kMultipliers[2] = {0xD2511F53U, 0xCD9E8D57U};
  constexpr std::uint32_t kKeySteps[2] = {0x9E3779B9U, 0xBB67AE85U};
  constexpr int kRounds = 10;
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t a = std::uint64_t{kMultipliers[0]} * counter[0];
    const std::uint64_t b = std::uint64_t{kMultipliers[1]} * counter[2];
    counter = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key = {key[0] + kKeySteps[0], key[1] + kKeySteps[1]};
  }
  return counter;
}

}  // namespace millrace

#endif  // MILLRACE_KERNELS_PHILOX_H_
