#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

namespace millrace {
namespace {

class ThreadPoolOf : public ::testing::TestWithParam<int> {};

// Every worker while all have cores, fewer while other processes take them.
TEST_P(ThreadPoolOf, CallsItsCallerOnceARunAndNoWorkerTwice) {
  ThreadPool pool(GetParam());
  ASSERT_EQ(pool.threads(), GetParam());
  std::vector<int> calls(static_cast<std::size_t>(GetParam()));  // each worker writes its own
  constexpr int kRuns = 2000;
  for (int run = 0; run < kRuns; ++run) {
    pool.Run([&](int worker) { ++calls[static_cast<std::size_t>(worker)]; });
  }
  EXPECT_EQ(calls[0], kRuns);
  for (const int count : calls) EXPECT_LE(count, kRuns);
}

TEST_P(ThreadPoolOf, ShowsTheCallerWhatWorkersWrote) {
  ThreadPool pool(GetParam());
  std::vector<std::int64_t> data(1000);
  for (int round = 0; round < 200; ++round) {
    TaskCursor cursor;
    pool.Run([&](int) {
      for (std::int64_t i = cursor.Next(); i < 1000; i = cursor.Next())
        data[static_cast<std::size_t>(i)] += i;
    });
    // Plain reads: the end of a run orders them after every worker's writes.
    ASSERT_EQ(std::accumulate(data.begin(), data.end(), std::int64_t{0}),
              (round + 1) * std::int64_t{499500});
  }
}

// Runs that begin just when workers give up spinning and go to sleep; the pauses are random, up to
// twice what a worker spins. A lost wake-up leaves both sides asleep, so the test would not end.
TEST_P(ThreadPoolOf, WakesWorkersThatAreAboutToSleep) {
  ThreadPool pool(GetParam());
  constexpr std::uint32_t kSeed = 1;
  std::minstd_rand rng(kSeed);
  constexpr std::int64_t kRuns = 5000;
  std::atomic<std::int64_t> tasks{0};
  for (std::int64_t run = 0; run < kRuns; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    const std::chrono::nanoseconds pause(rng() % 60000);
    while (std::chrono::steady_clock::now() - begin < pause) {
    }
    TaskCursor cursor;
    pool.Run([&](int) {
      while (cursor.Next() < 4) tasks.fetch_add(1, std::memory_order_relaxed);
    });
  }
  EXPECT_EQ(tasks.load(), 4 * kRuns);
}

TEST_P(ThreadPoolOf, EndsWithoutARun) { const ThreadPool pool(GetParam()); }

// More threads than any test machine has cores: they must sleep, not spin.
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolOf, ::testing::Values(1, 2, 3, 8, 33));

}  // namespace
}  // namespace millrace
