// Time as values. Schedulers take `now` as an argument; only the outermost loops own a Clock.
#ifndef MILLRACE_BASE_CLOCK_H_
#define MILLRACE_BASE_CLOCK_H_

#include <chrono>

namespace millrace {

using Duration = std::chrono::nanoseconds;

// Nanoseconds on a monotonic clock with an arbitrary origin.
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

inline constexpr TimePoint kNoDeadline = TimePoint::max();

inline double ToSeconds(Duration d) { return std::chrono::duration<double>(d).count(); }

// At most some days: beyond any deadline, and far from the end of what nanoseconds can count.
inline Duration FromSeconds(double seconds) {
  constexpr double kForever = 1e6;
  return std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(seconds < kForever ? seconds : kForever));
}

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;
};

// The machine's monotonic clock.
class SteadyClock final : public Clock {
 public:
  TimePoint Now() const override {
    return std::chrono::time_point_cast<Duration>(std::chrono::steady_clock::now());
  }
};

}  // namespace millrace

#endif  // MILLRACE_BASE_CLOCK_H_
