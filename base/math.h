// Arithmetic that the standard library lacks. Pure functions.
#ifndef MILLRACE_BASE_MATH_H_
#define MILLRACE_BASE_MATH_H_

#include <cstdint>

namespace millrace {

// a / b rounded up. REQUIRES: a >= 0, b > 0, a + b does not overflow.
constexpr std::int64_t CeilDivide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace millrace

#endif  // MILLRACE_BASE_MATH_H_
