// Random numbers of the simulator: splitmix64, the same on every machine. A value; not thread-safe.
#ifndef MILLRACE_TESTS_SIM_RNG_H_
#define MILLRACE_TESTS_SIM_RNG_H_

#include <cstdint>

namespace millrace::sim {

// The finaliser of splitmix64: any change of either input changes the output.
constexpr std::uint64_t Mix(std::uint64_t h, std::uint64_t value) {
  h ^= value + 0x9E3779B97F4A7C15ULL + (h << 6U) + (h >> 2U);
  h = (h ^ (h >> 30U)) * 0xBF58476D1CE4E5B9ULL;
  h = (h ^ (h >> 27U)) * 0x94D049BB133111EBULL;
  return h ^ (h >> 31U);
}

class Rng {
 public:
  explicit Rng(std::uint64_t seed) : state_(seed) {}

  std::uint64_t Next() { return Mix(state_ += 0x9E3779B97F4A7C15ULL, 0); }
  std::uint32_t Below(std::uint32_t n) { return static_cast<std::uint32_t>(Next() % n); }
  // Both ends included.
  std::int32_t Between(std::int32_t a, std::int32_t b) {
    return a + static_cast<std::int32_t>(Below(static_cast<std::uint32_t>(b - a + 1)));
  }
  bool Percent(std::uint32_t p) { return Below(100) < p; }

 private:
  std::uint64_t state_;
};

}  // namespace millrace::sim

#endif  // MILLRACE_TESTS_SIM_RNG_H_
