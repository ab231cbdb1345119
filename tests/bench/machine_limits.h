// What the machine can do at most, measured in the same run: the denominators of the
// micro-benchmarks. On one thread.
#ifndef MILLRACE_TESTS_BENCH_MACHINE_LIMITS_H_
#define MILLRACE_TESTS_BENCH_MACHINE_LIMITS_H_

#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>

#include "kernels/cpu/int8_peak.h"

namespace millrace::bench {

// Memory in huge pages, as the backend keeps its weights and its cache.
class HugeMemory {
 public:
  // REQUIRES: a multiple of 2 MiB.
  explicit HugeMemory(std::size_t bytes)
      : span_(static_cast<std::byte*>(std::aligned_alloc(kPage, bytes)), bytes) {
    madvise(span_.data(), bytes, MADV_HUGEPAGE);
    std::memset(span_.data(), 0, bytes);
  }
  ~HugeMemory() { std::free(span_.data()); }
  HugeMemory(const HugeMemory&) = delete;
  HugeMemory& operator=(const HugeMemory&) = delete;
  std::span<std::byte> span() const { return span_; }

 private:
  static constexpr std::size_t kPage = std::size_t{2} << 20;
  std::span<std::byte> span_;
};

// The best time of five, in seconds.
template <typename F>
double BestSeconds(F&& work) {
  double best = 1e30;
  for (int pass = 0; pass < 5; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
  }
  return best;
}

// A plain read of `memory`, in bytes a second: four streams at once, as kernels read several rows.
inline double ReadBandwidth(std::span<const std::byte> memory) {
  typedef std::uint64_t Pair __attribute__((vector_size(16)));
  const std::size_t quarter = memory.size() / 4 / 64 * 4;  // pairs
  const auto* pairs = reinterpret_cast<const Pair*>(memory.data());
  const double seconds = BestSeconds([&] {
    Pair sums[4][2] = {};
    for (std::size_t i = 0; i < quarter; i += 4) {
      for (std::size_t stream = 0; stream < 4; ++stream) {
        const Pair* at = pairs + stream * quarter + i;
        __builtin_prefetch(reinterpret_cast<const char*>(at) + 2048);
        sums[stream][0] += at[0] + at[1];
        sums[stream][1] += at[2] + at[3];
      }
    }
    benchmark::DoNotOptimize(sums);
  });
  return static_cast<double>(memory.size()) / seconds;
}

// Multiplications and additions of int8 a second at a level, all operands in registers.
inline double Int8Peak(cpu::Isa isa) {
  constexpr std::int64_t kRounds = 500'000;
  const cpu::Int8PeakVariant& peak = cpu::SelectInt8Peak(isa);
  const double seconds = BestSeconds([&] { benchmark::DoNotOptimize(peak.fn(kRounds)); });
  return static_cast<double>(peak.operations * kRounds) / seconds;
}

}  // namespace millrace::bench

#endif  // MILLRACE_TESTS_BENCH_MACHINE_LIMITS_H_
