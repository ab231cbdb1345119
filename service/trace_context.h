// W3C trace context: where in a distributed trace a call stands, as its metadata says. Read and put
// in the log, never judged by. Thread-safe (pure functions on values).
#ifndef MILLRACE_SERVICE_TRACE_CONTEXT_H_
#define MILLRACE_SERVICE_TRACE_CONTEXT_H_

#include <optional>
#include <string>
#include <string_view>

namespace millrace {

inline constexpr char kTraceparent[] = "traceparent";

struct TraceContext {
  std::string trace_id;   // 32 hexadecimal digits in lower case, not all 0
  std::string parent_id;  // the caller's span: 16, not all 0
};

// Reads `header`, version 00: "00-<trace id>-<parent id>-<2 digits of flags>". nullopt for anything
// else: what a caller got wrong must not fail its call.
std::optional<TraceContext> ParseTraceparent(std::string_view header);

}  // namespace millrace

#endif  // MILLRACE_SERVICE_TRACE_CONTEXT_H_
