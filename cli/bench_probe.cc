#include "cli/bench_probe.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/clock.h"
#include "base/thread_pool.h"
#include "kernels/cpu/int8_peak.h"
#include "kernels/cpu/isa.h"
#include "runtime/backend/cpu/huge_buffer.h"
#include "runtime/backend/factory.h"

namespace millrace::cli {
namespace {

constexpr std::int64_t kReadBytes = std::int64_t{1} << 30;
constexpr int kRounds = 5;

// Streams that a worker reads at once, as a matrix product reads several rows, and how far ahead it
// asks. One stream leaves a tenth of the bandwidth unused (measured on Zen 5).
constexpr std::int64_t kStreams = 4;
constexpr std::int64_t kAheadBytes = 2048;

// Two sums a stream, so that all of them stay in the 16 registers of the portable level.
typedef std::uint64_t Pair __attribute__((vector_size(16)));
constexpr std::int64_t kPairsInLine = 4;

std::uint64_t SumLines(const Pair* pairs, std::int64_t count) {
  Pair sums[kStreams][2] = {};
  const std::int64_t each = count / kStreams / kPairsInLine * kPairsInLine;
  for (std::int64_t i = 0; i < each; i += kPairsInLine) {
    for (std::int64_t stream = 0; stream < kStreams; ++stream) {
      const Pair* at = pairs + stream * each + i;
      __builtin_prefetch(reinterpret_cast<const char*>(at) + kAheadBytes);
      sums[stream][0] += at[0] + at[1];
      sums[stream][1] += at[2] + at[3];
    }
  }
  Pair total = {};
  for (const auto& stream : sums) total += stream[0] + stream[1];
  return total[0] + total[1];
}

// The best time of a few rounds of work(i) for i below the pool's threads.
template <typename F>
double BestSeconds(ThreadPool* pool, F&& work) {
  const SteadyClock clock;
  double best = 1e30;
  for (int round = 0; round <= kRounds; ++round) {
    TaskCursor cursor;
    const TimePoint begin = clock.Now();
    pool->Run([&](int) {
      for (std::int64_t i = cursor.Next(); i < pool->threads(); i = cursor.Next()) work(i);
    });
    if (round > 0) best = std::min(best, ToSeconds(clock.Now() - begin));
  }
  return best;
}

// 0 if there is no memory to read.
double ReadRate(ThreadPool* pool, std::int64_t bytes) {
  // As the weights lie: in huge pages where the system has them.
  const auto memory = cpu::HugeBuffer::Allocate(bytes, "the probe of the read bandwidth");
  if (!memory.ok()) return 0;
  std::memset(memory->data(), 1, static_cast<std::size_t>(bytes));
  const auto* pairs = reinterpret_cast<const Pair*>(memory->data());
  std::atomic<std::uint64_t> sink{0};
  const std::int64_t each = bytes / static_cast<std::int64_t>(sizeof(Pair)) / pool->threads();
  const double seconds =
      BestSeconds(pool, [&](std::int64_t i) { sink += SumLines(pairs + i * each, each); });
  return static_cast<double>(bytes) / seconds / 1e9;
}

// Multiplications in registers on every worker.
double Int8Rate(ThreadPool* pool, cpu::Isa isa) {
  constexpr std::int64_t kPeakRounds = 4'000'000;  // some ten milliseconds
  const cpu::Int8PeakVariant& peak = cpu::SelectInt8Peak(isa);
  std::atomic<std::int64_t> sink{0};
  const double seconds = BestSeconds(pool, [&](std::int64_t) { sink += peak.fn(kPeakRounds); });
  const std::int64_t operations = peak.operations * kPeakRounds * pool->threads();
  return static_cast<double>(operations) / seconds / 1e9;
}

}  // namespace

std::pair<int, std::string> BackendInUse(const LoadOptions& options) {
  const cpu::Isa isa = cpu::ParseIsa(options.cpu_isa).value_or(cpu::DetectIsa());
  return {ThreadsToUse(options.threads), std::string(cpu::IsaName(isa))};
}

ProbeResult ProbeMachine(int threads, const std::string& isa) {
  ThreadPool pool(threads);
  return {isa, ReadRate(&pool, kReadBytes),
          Int8Rate(&pool, cpu::ParseIsa(isa).value_or(cpu::DetectIsa()))};
}

double MeasureReadRate(int threads, std::int64_t available_bytes) {
  // No less than what no cache holds; touching memory for the first time takes longer than reading.
  const std::int64_t bytes = std::clamp(available_bytes / 4, kReadBytes / 4, kReadBytes / 2);
  ThreadPool pool(threads);
  return ReadRate(&pool, bytes);
}

}  // namespace millrace::cli
