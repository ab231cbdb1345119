// Lists of tasks in one run: each task once, lists in order, whoever is asleep meanwhile.
#include "base/task_chain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <random>
#include <vector>

namespace millrace {
namespace {

using ::testing::Each;

// Four lists of given lengths, the second one of tasks that are asked for ahead; counts what a
// correct chain never does.
class Counted {
 public:
  explicit Counted(std::array<std::int64_t, 4> counts) : counts_(counts) {
    for (std::size_t list = 0; list < 4; ++list) {
      runs_[list] = std::vector<std::atomic<int>>(static_cast<std::size_t>(counts[list]));
    }
  }

  // `delay` is called by each task with its list, before it counts as done.
  template <typename Delay>
  void Run(TaskChain* chain, Delay delay) {
    const auto do_task = [&](std::size_t list, std::int64_t i) {
      for (std::size_t before = 0; before < list; ++before) {
        if (done_[before] != counts_[before]) ++too_early_;
      }
      ++runs_[list][static_cast<std::size_t>(i)];
      delay(list);
      ++done_[list];
    };
    chain->Run(TaskList{counts_[0], [&](std::int64_t i, int) { do_task(0, i); }},
               AheadTaskList{counts_[1],
                             [&](std::int64_t i, std::int64_t next) {
                               if (next >= 0 && next <= i) ++out_of_order_;
                               do_task(1, i);
                             },
                             [&](std::int64_t i) {
                               return [this, i] {
                                 if (runs_[1][static_cast<std::size_t>(i)] != 0) ++out_of_order_;
                               };
                             }},
               TaskList{counts_[2], [&](std::int64_t i, int) { do_task(2, i); }},
               TaskList{counts_[3], [&](std::int64_t i, int) { do_task(3, i); }});
  }

  void ExpectAllDoneOnceAndInOrder() const {
    EXPECT_EQ(too_early_, 0);
    EXPECT_EQ(out_of_order_, 0);
    for (const auto& list : runs_) {
      for (const auto& count : list) ASSERT_EQ(count, 1);
    }
  }

 private:
  const std::array<std::int64_t, 4> counts_;
  std::array<std::vector<std::atomic<int>>, 4> runs_;
  std::array<std::atomic<std::int64_t>, 4> done_{};
  std::atomic<int> too_early_{0};
  std::atomic<int> out_of_order_{0};
};

// The first list ends only when the worker that waits behind it has asked.
TEST(TaskChain, AsksForWhatComesWhileItWaits) {
  ThreadPool pool(2);
  TaskChain chain(&pool);
  std::atomic<int> asked{0};
  chain.Run(TaskList{1,
                     [&](std::int64_t, int) {
                       for (int seen = 0; seen < 3; seen = asked) asked.wait(seen);
                     }},
            AheadTaskList{2, [](std::int64_t, std::int64_t) {},
                          [&](std::int64_t) {
                            return [&asked] {
                              ++asked;
                              asked.notify_one();
                            };
                          }});
  EXPECT_GE(asked, 3);
}

class TaskChainOf : public ::testing::TestWithParam<int> {};

TEST_P(TaskChainOf, DoesEachTaskOnceAndListsInOrder) {
  ThreadPool pool(GetParam());
  TaskChain chain(&pool);
  constexpr std::uint32_t kSeed = 1;
  SCOPED_TRACE(::testing::Message() << "seed " << kSeed);
  std::minstd_rand rng(kSeed);
  for (int round = 0; round < 1500; ++round) {
    // Empty lists and single tasks often: then a worker runs ahead of the others by several lists.
    const auto length = [&] {
      return static_cast<std::int64_t>(rng() % (rng() % 3 == 0 ? 40 : 2));
    };
    Counted tasks({length(), length(), length(), length()});
    tasks.Run(&chain, [](std::size_t) {});
    tasks.ExpectAllDoneOnceAndInOrder();
    if (HasFailure()) FAIL() << "round " << round;
  }
}

// The one task that all wait for takes longer than a waiting worker spins.
TEST_P(TaskChainOf, WakesWorkersThatSleepBeforeAList) {
  ThreadPool pool(GetParam());
  TaskChain chain(&pool);
  for (int round = 0; round < 50; ++round) {
    Counted tasks({1, 16, 1, 8});
    tasks.Run(&chain, [](std::size_t list) {
      const auto begin = std::chrono::steady_clock::now();
      const std::chrono::microseconds busy(list == 0 ? 200 : 0);
      while (std::chrono::steady_clock::now() - begin < busy) {
      }
    });
    tasks.ExpectAllDoneOnceAndInOrder();
  }
}

TEST_P(TaskChainOf, ShowsALaterListWhatEarlierOnesWrote) {
  ThreadPool pool(GetParam());
  TaskChain chain(&pool);
  std::vector<int> first(64);
  std::vector<int> second(64);
  for (int round = 1; round <= 300; ++round) {
    chain.Run(
        TaskList{64, [&](std::int64_t i, int) { first[static_cast<std::size_t>(i)] = round; }},
        TaskList{64, [&](std::int64_t i, int) {
                   second[static_cast<std::size_t>(i)] = first[static_cast<std::size_t>(63 - i)];
                 }});
    ASSERT_THAT(second, Each(round));
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, TaskChainOf, ::testing::Values(1, 2, 3, 8, 33));

}  // namespace
}  // namespace millrace
