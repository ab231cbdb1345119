// Checks for our own bugs. They abort with file, line and reason; input never reaches one.
#ifndef MILLRACE_BASE_CHECK_H_
#define MILLRACE_BASE_CHECK_H_

namespace millrace {

// Prints `file:line: check failed: condition: why` to stderr and aborts. Thread-safe.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition, const char* why);

}  // namespace millrace

// Always on. REQUIRES: `condition` can only be false because of a bug in this repository.
#define MILLRACE_CHECK(condition, why)                 \
  (static_cast<bool>(condition) ? static_cast<void>(0) \
                                : ::millrace::CheckFailed(__FILE__, __LINE__, #condition, why))

// On in debug and sanitizer builds only: for checks too dear for a decode step.
#if !defined(NDEBUG) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MILLRACE_DCHECK(condition, why) MILLRACE_CHECK(condition, why)
#else
#define MILLRACE_DCHECK(condition, why) static_cast<void>(sizeof(condition))
#endif

#endif  // MILLRACE_BASE_CHECK_H_
