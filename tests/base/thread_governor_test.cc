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
  int tries = 0;
  for (int i = 0; i < 10000; ++i) {  // ten seconds and more beside a busy process
    const bool trying = s.active() == 2;
    s.Go(milliseconds{1}, trying ? milliseconds{4} : milliseconds{1},
         trying ? milliseconds{3} : milliseconds{0});
    tries += trying && s.active() == 1 ? 1 : 0;
  }
  EXPECT_GT(tries, 8);
  EXPECT_LT(tries, 25);  // each costs a window: some hundredths of the time
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

TEST(ThreadGovernor, DoesNotCountTheTimeInWhichNothingRan) {
  Simulation s(2);
  s.Go(milliseconds{4}, milliseconds{4}, milliseconds{3});
  for (int i = 0; i < 10; ++i) {
    s.Idle(milliseconds{50});
    s.Go(milliseconds{1}, milliseconds{1}, milliseconds{0});
  }
  EXPECT_EQ(s.active(), 2);
}

}  // namespace
}  // namespace millrace
