// Arithmetic on sizes that a file claims: never wraps. Thread-safe (pure functions).
#ifndef MILLRACE_RUNTIME_GGUF_CHECKED_MATH_H_
#define MILLRACE_RUNTIME_GGUF_CHECKED_MATH_H_

#include <cstdint>
#include <optional>

namespace millrace {

inline std::optional<std::uint64_t> CheckedAdd(std::uint64_t a, std::uint64_t b) {
  std::uint64_t out = 0;
  return __builtin_add_overflow(a, b, &out) ? std::nullopt : std::optional(out);
}

inline std::optional<std::uint64_t> CheckedMultiply(std::uint64_t a, std::uint64_t b) {
  std::uint64_t out = 0;
  return __builtin_mul_overflow(a, b, &out) ? std::nullopt : std::optional(out);
}

// `value` rounded up to a multiple of `alignment`. REQUIRES: alignment > 0.
inline std::optional<std::uint64_t> CheckedAlign(std::uint64_t value, std::uint64_t alignment) {
  const std::uint64_t rest = value % alignment;
  return rest == 0 ? std::optional(value) : CheckedAdd(value, alignment - rest);
}

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_GGUF_CHECKED_MATH_H_
