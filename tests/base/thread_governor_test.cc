#include "base/thread_governor.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// Runs of `length` from `now` on, for `time`; a waiting time for each.
class Simulation {
 public:
  explicit Simulation(int threads) : governor_(threads) {}

  void Go(Duration time, Duration length, Duration waited) {
    for (const TimePoint end = now_ + time; now_ < end;) {
      now_ += length;
      governor_.Note(now_, waited);
    }
  }
  void Idle(Duration time) { now_ += time; }
  int active() const { return governor_.active(); }

 private:
  ThreadGovernor governor_;
  TimePoint now_{milliseconds{1000}};
};

TEST(ThreadGovernor, KeepsAllThreadsWhileTasksAreMerelyUneven) {
  Simulation s(4);
  // Two fifths of every run is spent waiting, but never for a time slice.
  s.Go(milliseconds{500}, microseconds{100}, microseconds{40});
  EXPECT_EQ(s.active(), 4);
  // Long runs of prefill with an uneven end.
  s.Go(milliseconds{500}, milliseconds{10}, milliseconds{1});
  EXPECT_EQ(s.active(), 4);
  s.Go(milliseconds{1000}, milliseconds{200}, milliseconds{20});
  EXPECT_EQ(s.active(), 4);
}

TEST(ThreadGovernor, GoesOnWithoutAThreadThatHasNoCoreAndTriesAgain) {
  Simulation s(2);
  s.Go(milliseconds{32}, milliseconds{4}, milliseconds{3});
  EXPECT_EQ(s.active(), 1);
  s.Go(milliseconds{10}, microseconds{200}, Duration{0});
  EXPECT_EQ(s.active(), 1);
  s.Go(milliseconds{20}, microseconds{200}, Duration{0});
  EXPECT_EQ(s.active(), 2);
}

// What a virtual machine sees whose host is busy: a core is gone for a time slice now and then.
TEST(ThreadGovernor, KeepsAThreadThatIsGoneForAMomentNowAndThen) {
  Simulation s(2);
  for (int i = 0; i < 100; ++i) {
    s.Go(milliseconds{95}, microseconds{200}, microseconds{50});
    s.Go(milliseconds{5}, milliseconds{5}, microseconds{4900});
    ASSERT_EQ(s.active(), 2) << "the " << i << "th time";
  }
}

TEST(ThreadGovernor, TriesLessOftenWhileItFails) {
  Simulation s(2);
  int runs_of_two = 0;
  for (int i = 0; i < 2500; ++i) {  // ten seconds beside a busy process
    runs_of_two += s.active() == 2 ? 1 : 0;
    s.Go(milliseconds{4}, milliseconds{4}, milliseconds{s.active() == 2 ? 3 : 0});
  }
  EXPECT_GT(runs_of_two, 20) << "it has to try";
  EXPECT_LT(runs_of_two, 50) << "a hundredth or two of the time";
}

TEST(ThreadGovernor, JudgesATryByItsFirstTimeSlice) {
  for (const Duration run : {Duration{milliseconds{4}}, Duration{milliseconds{16}}}) {
    Simulation s(2);
    s.Go(milliseconds{32}, milliseconds{4}, milliseconds{3});
    while (s.active() == 1) s.Go(run, run, Duration{0});
    s.Go(run, run, milliseconds{1} + run * 3 / 4);
    EXPECT_EQ(s.active(), 1);
  }
}

TEST(ThreadGovernor, JudgesTheRestMildlyAfterATryThatFailed) {
  Simulation s(3);
  s.Go(milliseconds{32}, milliseconds{4}, milliseconds{3});
  while (s.active() == 2) s.Go(milliseconds{1}, milliseconds{1}, Duration{0});
  s.Go(milliseconds{4}, milliseconds{4}, microseconds{3900});
  ASSERT_EQ(s.active(), 2);
  s.Go(milliseconds{4}, milliseconds{4}, microseconds{3900});
  EXPECT_EQ(s.active(), 2);
}

TEST(ThreadGovernor, ForgetsTriesThatFailedOnceOneWentWellForASecond) {
  for (const bool well : {false, true}) {
    Simulation s(2);
    for (int i = 0; i < 2500; ++i) {
      s.Go(milliseconds{4}, milliseconds{4}, milliseconds{s.active() == 2 ? 3 : 0});
    }
    while (s.active() == 1) s.Go(milliseconds{1}, microseconds{200}, Duration{0});
    s.Go(milliseconds{well ? 1200 : 500}, microseconds{200}, Duration{0});
    ASSERT_EQ(s.active(), 2);
    while (s.active() == 2) s.Go(milliseconds{4}, milliseconds{4}, milliseconds{3});
    s.Go(milliseconds{25}, microseconds{200}, Duration{0});
    EXPECT_EQ(s.active(), well ? 2 : 1);
  }
}

TEST(ThreadGovernor, TakesThreadsBackOneByOneWithoutPausesWhileItGoesWell) {
  Simulation s(16);
  for (int i = 0; i < 500; ++i) {
    s.Go(milliseconds{4}, milliseconds{4}, milliseconds{s.active() > 8 ? 3 : 0});
  }
  s.Go(milliseconds{1200}, microseconds{200}, Duration{0});
  EXPECT_EQ(s.active(), 16);
}

TEST(ThreadGovernor, DropsOneThreadForEachCoreThatIsTaken) {
  Simulation s(4);
  int runs_of_two = 0;
  for (int i = 0; i < 500; ++i) {  // two seconds with two of four cores
    s.Go(milliseconds{4}, milliseconds{4}, milliseconds{s.active() > 2 ? 3 : 0});
    runs_of_two += s.active() == 2 ? 1 : 0;
    ASSERT_GE(s.active(), 2);
  }
  EXPECT_GT(runs_of_two, 450);
}

// As seen beside a busy process: time slices fell into windows of a fixed length by halves.
TEST(ThreadGovernor, CountsWaitsThatFollowEachOtherWhereverTheyBegin) {
  for (int offset = 0; offset < 100; offset += 5) {
    Simulation s(2);
    s.Go(milliseconds{1000 + offset}, microseconds{200}, Duration{0});
    s.Go(milliseconds{20}, milliseconds{4}, microseconds{3900});
    EXPECT_EQ(s.active(), 1) << "after " << offset << " ms";
  }
}

TEST(ThreadGovernor, ForgivesWaitsBetweenWhichNothingRan) {
  Simulation s(2);
  s.Go(milliseconds{1}, milliseconds{1}, Duration{0});
  for (int i = 0; i < 100; ++i) {
    s.Go(milliseconds{8}, milliseconds{4}, milliseconds{3});
    s.Idle(milliseconds{50});
  }
  EXPECT_EQ(s.active(), 2);
}

}  // namespace
}  // namespace millrace
