#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
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

TEST_P(ThreadPoolOf, EndsWithoutARun) { const ThreadPool pool(GetParam()); }

// More threads than any test machine has cores: they must sleep, not spin.
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolOf, ::testing::Values(1, 2, 3, 8, 33));

}  // namespace
}  // namespace millrace
